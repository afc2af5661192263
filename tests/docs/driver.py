"""Runs the blocks of pages: `python -m tests.docs.driver` takes a page a line on its input, as JSON.

It imports the large libraries once, and forks for each page. So a page costs what it computes.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import shlex
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.docs.blocks import RUN, read_blocks


def main() -> None:
    """Answer each line `{"page": file, "folder": folder}` with the results of the page's blocks, one JSON line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print by themselves is no answer
    _import_everything()
    for line in sys.stdin:
        task = json.loads(line)
        file = Path(task["folder"]) / "results.json"
        if (child := os.fork()) == 0:
            status = 1
            try:
                os.chdir(task["folder"])
                file.write_text(json.dumps(_run_page(Path(task["page"]))))
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        results = json.loads(file.read_text()) if status == 0 else None
        file.unlink(missing_ok=True)
        print(json.dumps(results), file=answers, flush=True)


def _import_everything() -> None:
    # The command line imports what a command needs when it runs.
    commands = ("convert", "inspect", "verify", "publish", "complete", "embed")
    for name in ("keras_hub", "peft", "sentence_transformers", "albert_hub_bridge.cli"):
        importlib.import_module(name)
    for name in commands:
        importlib.import_module(f"albert_hub_bridge.commands.{name}")


def _run_page(page: Path) -> list[dict[str, Any]]:
    """Run the blocks of a page until one fails.

    Returns:
        For each command and Python block: its line, its code, the exit code that is found and expected, the output, and
        the output that the page shows.
    """
    results: list[dict[str, Any]] = []
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in read_blocks(page.read_text(encoding="utf-8")):
        if block.reason is not None or block.language not in RUN:
            continue
        steps = block.commands if block.language == "console" else [(block.code, "")]
        for number, (code, shown) in enumerate(steps, start=1):
            if block.language == "python":
                found, output = _run_python(code, f"{page}:{block.line}", namespace)
            else:
                found, output = _run_command(code)
            expected = block.exit_code if number == len(steps) else 0
            results.append(
                {"line": block.line, "code": code, "shown": shown, "exit": [expected, found], "output": output}
            )
            if found != expected:
                return results
    return results


def _run_python(code: str, place: str, namespace: dict[str, Any]) -> tuple[int, str]:
    with _captured() as (out, err):
        try:
            exec(compile(code, place, "exec"), namespace)
        except Exception:
            return 1, out.getvalue() + err.getvalue() + traceback.format_exc()
    return 0, out.getvalue()


def _run_command(code: str) -> tuple[int, str]:
    words = shlex.split(code, comments=True)
    if words[:1] != ["albert-hub-bridge"]:
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", code], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + (done.stderr if done.returncode else "")
    from albert_hub_bridge.cli import app

    status = 0
    with _captured() as (out, err):
        try:
            app(words[1:], prog_name="albert-hub-bridge")
        except SystemExit as end:
            status = int(end.code or 0)
    return status, out.getvalue() + (err.getvalue() if status else "")


@contextlib.contextmanager
def _captured() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield out, err


if __name__ == "__main__":
    main()
    os._exit(0)  # the libraries take seconds to end, and nothing is left to write
