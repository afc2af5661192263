"""`python -m albert_hub_bridge` is the command `albert-hub-bridge`."""

from albert_hub_bridge.cli import main


if __name__ == "__main__":
    main()
