"""The page in a browser: choose, convert, look and take. Needs Gradio, of the extra `ui`."""
