"""Start the command `albert-hub-bridge`, also as `python -m albert_hub_bridge`."""

from __future__ import annotations

import gc
import sys

from albert_hub_bridge import _interrupts
from albert_hub_bridge._requirements import explain_failed_import


# A command loads millions of objects of torch, transformers and Keras. With Python's own thresholds, looking for
# garbage among them takes a quarter of the time of `verify`.
_THRESHOLDS = 50_000, 20, 10


def main() -> None:
    """Import the command without garbage collection, and run it."""
    _interrupts.end_without_traceback()
    # What an import makes is there to stay. Looking for garbage in it takes a tenth of the time until a command starts.
    gc.disable()
    try:
        from albert_hub_bridge import cli
    except Exception:  # protobuf raises an exception of its own
        _exit_if_versions_are_wrong()
        raise
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    gc.enable()
    _interrupts.raise_again()
    try:
        cli.main()
    except Exception:  # a command imports its libraries when it runs
        _exit_if_versions_are_wrong()
        raise
    finally:
        # Otherwise Python looks through all objects when it ends. With triton it has to: that is written with nanobind,
        # which warns of what is not collected.
        if "triton" not in sys.modules:
            gc.freeze()


def _exit_if_versions_are_wrong() -> None:
    if (message := explain_failed_import()) is not None:
        print(f"Error: {message}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
