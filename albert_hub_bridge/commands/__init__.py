"""The commands: convert, inspect, verify, check and publish."""
