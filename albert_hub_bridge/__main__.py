"""Run the command `albert-hub-bridge` by `python -m albert_hub_bridge`."""

from albert_hub_bridge.cli import main


if __name__ == "__main__":
    main()
