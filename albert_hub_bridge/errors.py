"""The exceptions of this package.

::

    AlbertHubBridgeError          base class; the command prints the message and exits with 2
    ├── SourceError               the source does not exist, or is neither a preset nor a repository
    │   └── SourceNotFoundError   a local folder or file does not exist; also a FileNotFoundError
    ├── TargetError               the target cannot be written: it exists, the disk is full, or the hub refused
    │   ├── TargetExistsError     it exists, and may not be replaced; also a FileExistsError
    │   └── TargetNotFoundError   the folder that should hold it does not exist; also a FileNotFoundError
    ├── EngineError               a library cannot load or compute one side of a verification
    └── CheckpointError           the source is invalid; the message lists every problem
        ├── FileError             a file is not a regular file, lies outside its folder, is too large or is a stub
        ├── ConfigurationError    JSON: unknown keys, missing keys, unsupported values, impossible architectures
        ├── WeightsError          tensors: missing, unexpected, wrong shape, wrong dtype
        └── VocabularyError       the SentencePiece vocabulary is not usable
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from albert_hub_bridge.text import one_line, printable


@dataclass(frozen=True, slots=True)
class Problem:
    """One line of an error message.

    Args:
        kind: What is wrong, in a few words: "missing", "wrong shape".
        where: The key or the tensor; may be empty.
        detail: Expected beside found: "expected (768,), found (767,)".
    """

    kind: str
    where: str
    detail: str


class AlbertHubBridgeError(Exception):
    """Base class of the exceptions of this package."""


class SourceError(AlbertHubBridgeError):
    """The source does not exist, or is neither a KerasHub preset nor a Hub repository."""


class TargetError(AlbertHubBridgeError):
    """The target cannot be written."""


class SourceNotFoundError(SourceError, FileNotFoundError):
    """The local folder or file of a source does not exist."""


class TargetExistsError(TargetError, FileExistsError):
    """The target exists, and may not be replaced."""


class TargetNotFoundError(TargetError, FileNotFoundError):
    """The folder that should hold the target does not exist."""


class EngineError(AlbertHubBridgeError):
    """A library cannot load, tokenize or compute one side of a verification."""


class CheckpointError(AlbertHubBridgeError):
    """The source is not a valid ALBERT checkpoint.

    Args:
        where: The invalid file or folder.
        subject: The part that is invalid: "weights", "configuration", "vocabulary", "files".
        problems: All problems, not only the first.
        advice: What the user can do. Each class has a default.
    """

    default_advice = "Download the source again, or re-export it."

    def __init__(self, where: str | Path, subject: str, problems: Sequence[Problem], advice: str = "") -> None:
        self.where, self.subject, self.problems = Path(where), subject, tuple(problems)
        self.advice = advice or self.default_advice
        super().__init__(_as_table(f"in the {subject} of {where}", self.problems, self.advice))


class FileError(CheckpointError):
    """A file is not a regular file of its folder, is too large, or does not have the expected content."""


class ConfigurationError(CheckpointError):
    """A JSON file has unknown, missing, unsupported or contradictory values, or describes an impossible model."""

    default_advice = "Correct the file, or download the source again."


class WeightsError(CheckpointError):
    """Tensors are missing, unexpected, or have a wrong shape or dtype."""


class VocabularyError(CheckpointError):
    """The SentencePiece vocabulary cannot be used for ALBERT."""

    default_advice = "Replace it with the vocabulary that the model was trained with."


_FREE_SPACE = "Free some space, or choose a target on another disk."
_PERMISSIONS = "Change the permissions of the folder, or choose another target."
# fmt: off
_DISK_ADVICE = {
    errno.ENOSPC:       f"The disk is full. {_FREE_SPACE}",
    errno.EDQUOT:       f"Your disk quota is exceeded. {_FREE_SPACE}",
    errno.EIO:          "The disk or its connection fails; see the system log. Choose a target on another disk.",
    errno.EROFS:        "The file system is read-only. Remount it for writing, or choose a target on another disk.",
    errno.EACCES:       f"You have no write permission. {_PERMISSIONS}",
    errno.EPERM:        f"You have no write permission. {_PERMISSIONS}",
    errno.EFBIG:        "The file system does not support files of this size. Pass --max-shard-size (max_shard_size).",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.EBUSY:        "The folder is in use, perhaps as a mount point. Choose a folder inside it.",
    errno.EXDEV:        "Another file system is mounted at the target. Choose a folder inside it.",
    errno.EMFILE:       "The process has too many open files. Raise the limit (ulimit -n).",
}
# fmt: on


def write_error(where: str | Path, error: OSError, outcome: str = "Nothing was changed.") -> TargetError:
    """Return the exception for a failed write: the file, the cause and what to do.

    Args:
        where: The file that could not be written, by its final name.
        error: The error of the operating system.
        outcome: What the target is like now.
    """
    advice = _DISK_ADVICE.get(error.errno or 0, "Choose another target.")
    return TargetError(f"{where} could not be written: {error.strerror or error}. {advice} {outcome}")


# The content of an untrusted file decides how many problems there are and how long their texts are.
_MAX_PROBLEMS = 1000
_MAX_LENGTHS = {"kind": 40, "where": 160, "detail": 600}


def _as_table(title: str, problems: Sequence[Problem], advice: str) -> str:
    listed = problems[:_MAX_PROBLEMS]
    rows = [[one_line(getattr(problem, name), length) for name, length in _MAX_LENGTHS.items()] for problem in listed]
    kind_width = max((len(kind) for kind, _, _ in rows), default=0)
    where_width = max((len(where) for _, where, _ in rows), default=0)
    lines = [f"{len(problems)} problem{'s' if len(problems) != 1 else ''} {printable(title)}"]
    lines += [f"  {kind:<{kind_width}}  {where:<{where_width}}  {detail}".rstrip() for kind, where, detail in rows]
    if len(problems) > len(listed):
        lines.append(f"  and {len(problems) - len(listed)} more")
    return "\n".join([*lines, advice])
