"""Run the tests in environments of their own: `make matrix`, or `python -m tests.matrix ROW ... -- PYTEST ARGUMENTS`.

    3.11, 3.12, ...   that Python, with the versions in constraints.txt
    lowest            the smallest versions that pyproject.toml allows, with the oldest Python
    newest            the newest versions that there are, with the oldest Python

Every row is tried. A row whose Python is not installed is skipped, and the table at the end says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path


ROOT = Path(__file__).parents[1]
PYTHONS = tuple(
    classifier.rpartition(" ")[2]
    for classifier in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["classifiers"]
    if classifier.startswith("Programming Language :: Python :: 3.")
)
ROWS = (*PYTHONS, "lowest", "newest")

# uv takes the newest version of what is only needed by others. Newer ones of fsspec exclude the smallest datasets, and
# with it the smallest pyarrow.
_HELD_BACK = "fsspec<2025.11\n"

_VERSIONS = """
import importlib.metadata as metadata, platform
names = ("torch", "transformers", "tokenizers", "keras-hub", "protobuf")
found = {each.name: each.version for each in metadata.distributions() if each.name in names}
print("Python " + platform.python_version(), *(f"{name} {found[name]}" for name in names if name in found), sep=", ")
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a row."""

    row: str
    outcome: str
    versions: str = ""


def main(arguments: list[str]) -> int:
    """Run rows, print a table, and return the exit code: 1 if a row failed."""
    rows, tests = arguments, []
    if "--" in arguments:
        cut = arguments.index("--")
        rows, tests = arguments[:cut], arguments[cut + 1 :]
    if unknown := sorted(set(rows) - set(ROWS)):
        print(f"unknown rows: {', '.join(unknown)}; there are: {', '.join(ROWS)}", file=sys.stderr)
        return 2
    uv = find_uv()
    results = [run_row(row, tests, uv) for row in rows or ROWS]
    for result in results:
        print(f"{result.row:8} {result.outcome:32} {result.versions}")
    return int(any(result.outcome.startswith("failed") for result in results))


def find_uv() -> list[str] | None:
    """Return the command of uv, or None: then pip makes the environments, and `lowest` is skipped."""
    if command := shutil.which("uv"):
        return [command]
    module = [sys.executable, "-m", "uv"]
    return module if subprocess.run([*module, "--version"], capture_output=True, check=False).returncode == 0 else None


def run_row(row: str, tests: list[str], uv: list[str] | None) -> Result:
    """Make the environment of a row, and run the tests in it."""
    version = row if row in PYTHONS else PYTHONS[0]
    if (python := find_python(version)) is None:
        return Result(row, f"skipped: no Python {version}")
    if row == "lowest" and uv is None:
        return Result(row, "skipped: no uv")
    with tempfile.TemporaryDirectory(prefix=f"albert-hub-bridge-{row}-") as folder:
        print(f"== {row}: {python}", flush=True)
        there = Path(folder) / "bin" / "python"
        try:
            install(row, python, Path(folder), uv)
        except subprocess.CalledProcessError:
            return Result(row, "failed to install")
        versions = subprocess.run([there, "-c", _VERSIONS], capture_output=True, text=True, check=True).stdout.strip()
        parallel = ["--numprocesses", "auto", "--dist", "worksteal"]
        done = subprocess.run([there, "-m", "pytest", *(tests or parallel)], cwd=ROOT, check=False)
    return Result(row, "passed" if done.returncode == 0 else f"failed: pytest ended with {done.returncode}", versions)


def find_python(version: str) -> str | None:
    """Return an interpreter of a version: on the path, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [sys.executable, shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"))]
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    for candidate in map(str, filter(None, candidates)):
        done = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:  # pyenv's shims fail for versions that are not chosen
            return candidate
    return None


def install(row: str, python: str, folder: Path, uv: list[str] | None) -> None:
    """Make an environment in a folder, with this package and the versions of a row."""
    constraints, there = folder / "constraints.txt", str(folder / "bin" / "python")
    if uv:
        subprocess.run([*uv, "venv", "--quiet", "--seed", "--allow-existing", "--python", python, folder], check=True)
        # Compiled by the first test that imports it, a library with an invalid escape would fail that test.
        # On a busy machine, a file takes longer than uv waits.
        os.environ.setdefault("UV_COMPILE_BYTECODE_TIMEOUT", "0")
        pip = [*uv, "pip", "install", "--compile-bytecode", "--python", there]
    else:
        subprocess.run([python, "-m", "venv", folder], check=True)
        pip = [there, "-m", "pip", "install"]
    constraints.write_text(pinned_versions(row, python, uv), encoding="utf-8")
    subprocess.run([*pip, "--quiet", "--constraint", str(constraints), "--editable", f"{ROOT}[test]"], check=True)


def pinned_versions(row: str, python: str, uv: list[str] | None) -> str:
    """Return the constraints of a row."""
    if row == "newest":
        return ""
    if row != "lowest" or uv is None:
        return (ROOT / "constraints.txt").read_text(encoding="utf-8")
    lowest = ["--resolution", "lowest-direct", "--extra", "test", "--python", python, "--constraint", "-"]
    command = [*uv, "pip", "compile", "--quiet", "--no-header", *lowest, str(ROOT / "pyproject.toml")]
    return subprocess.run(command, input=_HELD_BACK, stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
