"""The program of the separate process that `sandbox.Sandbox` starts, and its tasks: one module per file format."""
