"""Ctrl-C while the command starts.

Importing the command takes a second. Until it can print a message, Ctrl-C ends the process without a traceback. Python
itself shows one before it imports anything of this package, in its first hundredth of a second.
"""

from __future__ import annotations

import os
import signal
import sys


def is_command() -> bool:
    """Return whether this process is the command, and no other program that imports this package."""
    script, options = "".join(sys.argv[:1]), " ".join(sys.orig_argv)
    return os.path.basename(script) == "albert-hub-bridge" or (script == "-m" and "-m albert_hub_bridge" in options)


def end_without_traceback() -> None:
    """Let Ctrl-C end the process, unless it is ignored or handled in another way."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def raise_again() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again, after `end_without_traceback`."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
