"""The exceptions that this package raises on purpose.

::

    AlbertHubBridgeError          everything below; the command prints it and exits with 2
    ├── SourceError               the source cannot be found, or is neither a preset nor a repository
    ├── TargetError               the target cannot be written: it exists, or the disk is full, or somebody else writes
    ├── EngineError               a library cannot load or compute one side of a verification
    └── CheckpointError           the source was found and is wrong: lists every problem at once
        ├── FileError             a file is not one, or lies outside of its folder, or is too large, or a mere pointer
        ├── ConfigurationError    in a JSON file: unknown, missing or refused keys, impossible architectures
        ├── WeightsError          in the tensors: missing, unexpected, wrong shape, wrong dtype
        └── VocabularyError       in the SentencePiece vocabulary
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from albert_hub_bridge.text import one_line, printable


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: what kind, where, and expected beside found."""

    kind: str  # "missing", "wrong shape", ...: a few words that head the line
    where: str  # a key or the name of a tensor; empty where that is empty
    detail: str  # "expected (768,), found (767,)"


class AlbertHubBridgeError(Exception):
    """Base of every exception that this package raises on purpose."""


class SourceError(AlbertHubBridgeError):
    """The source does not exist, or is neither a KerasHub preset nor a Hub repository."""


class TargetError(AlbertHubBridgeError):
    """The target cannot be written."""


class EngineError(AlbertHubBridgeError):
    """A library cannot load, tokenize or compute one side of a verification."""


class CheckpointError(AlbertHubBridgeError):
    """What was read is not an ALBERT checkpoint that this package understands.

    Args:
        where: The file that is wrong.
        subject: What of it is wrong: "weights", "configuration", "vocabulary", "files".
        problems: Everything that is wrong with it, never only the first.
        advice: What the user can do, where that is not what helps in most cases.
    """

    usual_advice = "Get the source once more, or have it saved once more."

    def __init__(self, where: str | Path, subject: str, problems: Sequence[Problem], advice: str = "") -> None:
        self.where, self.subject, self.problems = Path(where), subject, tuple(problems)
        self.advice = advice or self.usual_advice
        super().__init__(_as_table(f"in the {subject} of {where}", self.problems, self.advice))


class FileError(CheckpointError):
    """A file is not a regular one of its own folder, is larger than it can be, or is something else by its content."""


class ConfigurationError(CheckpointError):
    """A configuration has unknown, missing, refused or contradictory keys, or describes an impossible architecture."""

    usual_advice = "Correct the file, or get the source once more."


class WeightsError(CheckpointError):
    """Tensors are missing, unexpected, or of the wrong shape or dtype."""


class VocabularyError(CheckpointError):
    """The SentencePiece vocabulary cannot be used for ALBERT."""

    usual_advice = "Put the vocabulary there that the model was trained with."


_OTHER_DISK = "or choose a target on another disk"
_ADVICE = {
    errno.ENOSPC: f"The disk is full. Make room, {_OTHER_DISK}.",
    errno.EDQUOT: f"Your quota of the disk is used up. Make room, {_OTHER_DISK}.",
    errno.EIO: "The disk or the way to it is failing, and the system's log says more. Choose a target on another disk.",
    errno.EROFS: f"The file system is mounted read-only. Mount it for writing, {_OTHER_DISK}.",
    errno.EACCES: "You may not write there. Change the rights of the folder, or choose another target.",
    errno.EPERM: "You may not write there. Change the rights of the folder, or choose another target.",
    errno.EFBIG: "The file system has no files that large. Pass --max-shard-size (max_shard_size).",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.EBUSY: "Something uses it: is it where another file system is mounted? Choose a folder inside it.",
    errno.EXDEV: "Another file system is mounted there. Choose a folder inside it.",
    errno.EMFILE: "The process has too many files open. Raise the limit (ulimit -n).",
}


def write_error(where: str | Path, error: OSError) -> TargetError:
    """Say which file the system refused to write, what happened, and what to do.

    Args:
        where: The file, by the name that it would have had.
        error: What the system said.
    """
    advice = _ADVICE.get(error.errno or 0, "Choose another target.")
    return TargetError(f"{where} could not be written: {error.strerror or error}. {advice} Nothing was changed.")


# What is listed was chosen by whoever made the file: no more of it than anybody reads.
_MOST_PROBLEMS, _LONGEST = 1000, {"kind": 40, "where": 160, "detail": 600}


def _as_table(title: str, problems: Sequence[Problem], advice: str) -> str:
    listed = problems[:_MOST_PROBLEMS]
    rows = [[one_line(getattr(problem, name), most) for name, most in _LONGEST.items()] for problem in listed]
    kinds = max((len(kind) for kind, _, _ in rows), default=0)
    places = max((len(where) for _, where, _ in rows), default=0)
    lines = [f"{len(problems)} problem{'s' if len(problems) != 1 else ''} {printable(title)}"]
    lines += [f"  {kind:<{kinds}}  {where:<{places}}  {detail}".rstrip() for kind, where, detail in rows]
    if len(problems) > len(listed):
        lines.append(f"  and {len(problems) - len(listed)} more")
    return "\n".join([*lines, advice])
