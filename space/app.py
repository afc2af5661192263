"""The page as a Space. All of it is in the package: `albert-hub-bridge ui` starts the same page on your machine."""

from albert_hub_bridge.ui.server import serve


if __name__ == "__main__":
    serve()
