"""Run a command in a terminal of its own, or without one."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping, Sequence


def run_in_terminal(command: Sequence[str], width: int, **settings: object) -> tuple[int, str]:
    """Return the exit code of a command, and what it showed in a terminal of that width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    variables = {key: value for key, value in _environment().items() if key not in ("COLUMNS", "NO_COLOR")}
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**variables, "TERM": "xterm-256color"},
        **settings,  # type: ignore[call-overload]
    )
    os.close(theirs)
    parts: list[bytes] = []
    reader = threading.Thread(target=_read_all, args=(ours, parts))
    reader.start()
    code = process.wait()
    reader.join()
    os.close(ours)
    return code, b"".join(parts).decode().replace("\r\n", "\n")


def _environment() -> dict[str, str]:
    """Return the variables of this process, but the one that JAX sets when another test imports it."""
    return {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}


def _read_all(terminal: int, parts: list[bytes]) -> None:
    try:
        while part := os.read(terminal, 65536):
            parts.append(part)
    except OSError:  # Linux says so when the process has closed its end
        pass


def run_without_terminal(command: Sequence[str], variables: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Return the exit code of a command, its output and its errors, with pipes."""
    environment = {**_environment(), **(variables or {})}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return result.returncode, result.stdout, result.stderr


COMMAND = (sys.executable, "-m", "albert_hub_bridge")
