"""The names of a classifier's labels, as the option `labels` of `convert` takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from albert_hub_bridge.errors import SourceError
from albert_hub_bridge.mapping.heads import LABELED_HEADS
from albert_hub_bridge.text import split_names


if TYPE_CHECKING:
    from albert_hub_bridge.checkpoint import Checkpoint


MAX_BYTES = 1_000_000  # of a file of names


def parse_labels(labels: str | Path | Sequence[str]) -> tuple[str, ...]:
    r"""Return the names of labels in order.

    Args:
        labels: The names; or `"negative,positive"`, where `\,` is a comma in a name; or a file with one name a line.

    Raises:
        ValueError: There is no name, a name is empty or occurs twice, or the file cannot be read.
    """
    if isinstance(labels, Path) or (isinstance(labels, str) and _is_file(labels)):
        names, where = _lines_of(Path(labels)), f"the file {labels}"
    elif isinstance(labels, str):
        names, where = split_names(labels), repr(labels)
    else:
        names, where = list(labels), repr(list(labels))
    stripped = [name.strip() if isinstance(name, str) else "" for name in names]
    if not stripped or not all(stripped):
        raise ValueError(f"labels should be names such as negative,positive, or a file with one name a line: {where}.")
    if twice := sorted({name for name in stripped if stripped.count(name) > 1}):
        raise ValueError(f"Each label needs a name of its own. In {where}, {', '.join(twice)} occurs twice.")
    return tuple(stripped)


def with_labels(checkpoint: Checkpoint, labels: Sequence[str], source: str | Path) -> Checkpoint:
    """Return a checkpoint whose labels have names.

    Args:
        checkpoint: Of a classifier.
        labels: Its names, in the order of the scores.
        source: Its name, for error messages.

    Raises:
        SourceError: It is no classifier, or has another number of labels.
    """
    head = checkpoint.head
    if head is None or head.kind not in LABELED_HEADS:
        found = "no head" if head is None else f"a {head.description}"
        raise SourceError(f"{source} has {found}, so its labels cannot be named. Leave out --labels (labels=...).")
    if len(labels) != head.num_labels:
        count = "1 name, and is no file" if len(labels) == 1 else f"{len(labels)} names"
        raise SourceError(
            f"{source} has a {head.description}, and --labels (labels=...) has {count}: "
            f"{', '.join(labels[:10])}. Give one name for each class, in the order of the scores."
        )
    return replace(checkpoint, head=replace(head, labels=tuple(labels)))


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # too long for a path, or with a null character
        return False


def _lines_of(file: Path) -> list[str]:
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"The file of labels {file} is larger than {MAX_BYTES:,} bytes.")
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"The file of labels {file} is not UTF-8: {error}. Save it as UTF-8.") from error
    except OSError as error:
        raise ValueError(f"The file of labels {file} cannot be read: {error.strerror}.") from error
