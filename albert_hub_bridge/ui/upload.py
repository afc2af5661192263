"""Unpack an uploaded archive. Nothing in it is trusted: names, sizes and kinds of entries are checked first."""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from albert_hub_bridge.errors import SourceError
from albert_hub_bridge.text import one_line
from albert_hub_bridge.ui.limits import Limits


_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_BLOCK = 1 << 20
_ENCRYPTED = 0x1
_MAX_NAME = 200
_MAX_DEPTH = 8


def unpack(archive: Path, folder: Path, limits: Limits) -> Path:
    """Unpack a zip archive, and return the folder of the model in it.

    Args:
        archive: The archive.
        folder: An empty folder to unpack into.
        limits: Number, sizes and compression of the entries. Sizes are those of the data, whatever the archive says.

    Raises:
        SourceError: It is no zip archive; or an entry has a name that leads out of the folder, is a link or a pickle,
            is encrypted or too large. What was unpacked may stay in the folder.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not _is_noise(entry.filename)]
            _check(entries, limits)
            left = limits.unpacked_bytes
            for entry in entries:
                if not entry.is_dir():
                    left -= _extract(opened, entry, folder, left)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeError, RuntimeError) as error:
        raise SourceError(f"The upload is no zip archive that can be read: {one_line(str(error), 200)}.") from error
    return _model_folder(folder)


def _is_noise(name: str) -> bool:
    """Return whether macOS added an entry."""
    return name.startswith("__MACOSX/") or PurePosixPath(name).name == ".DS_Store"


def _check(entries: list[zipfile.ZipInfo], limits: Limits) -> None:
    """Refuse an archive by its table of contents, before anything is written."""
    if not entries:
        raise SourceError("The upload is an empty archive. Pack the folder of a preset or repository.")
    if len(entries) > limits.entries:
        raise SourceError(f"The upload has {len(entries):,} entries, and may have {limits.entries:,}.")
    claimed = sum(entry.file_size for entry in entries)
    if claimed > limits.unpacked_bytes:
        raise SourceError(
            f"The upload says that it unpacks to {claimed / 1e9:,.2f} GB. This page unpacks at most "
            f"{limits.unpacked_bytes / 1e9:,.2f} GB. Convert it on your own machine: pip install albert-hub-bridge"
        )
    seen: set[str] = set()
    for entry in entries:
        if (problem := _problem(entry, limits)) is not None:
            raise SourceError(f"The upload was refused: {one_line(entry.orig_filename, _MAX_NAME)} {problem}.")
        if (key := entry.filename.rstrip("/").casefold()) in seen:
            raise SourceError(f"The upload was refused: it has {one_line(entry.filename, _MAX_NAME)} twice.")
        seen.add(key)


def _problem(entry: zipfile.ZipInfo, limits: Limits) -> str | None:
    """Return what is wrong with an entry, or None."""
    # `orig_filename`, because zipfile cuts a name at a zero byte.
    name, path, mode = entry.orig_filename, PurePosixPath(entry.filename), entry.external_attr >> 16
    # fmt: off
    problems = {
        "is no plain name of a file":
            not name.isprintable() or "\\" in name or ":" in name or len(name) > _MAX_NAME,
        "leads out of the folder, or is nested too deeply":
            path.is_absolute() or ".." in path.parts or len(path.parts) > _MAX_DEPTH,
        "is a link or a device, not a file":
            stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR),
        "is encrypted":
            bool(entry.flag_bits & _ENCRYPTED),
        "is compressed in another way than deflate":
            entry.compress_type not in _METHODS,
        f"is compressed more than {limits.ratio} times, as no weights are":
            entry.file_size > max(limits.ratio * entry.compress_size, _BLOCK),
        "is a pickle, which can hold code, and this page reads none. Save the model as safetensors, or leave the file "
        "out. On your own machine, albert-hub-bridge convert reads its tensors with allow_pickle":
            path.suffix.lower() in _PICKLES,
    }
    # fmt: on
    return next((problem for problem, is_so in problems.items() if is_so), None)


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, left: int) -> int:
    """Write one entry, and return its size. The limit holds for the data, not for the claimed size."""
    target = folder.joinpath(*PurePosixPath(entry.filename).parts)
    written = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as source, target.open("xb") as file:
            while block := source.read(_BLOCK):
                written += len(block)
                if written > left or written > entry.file_size:
                    raise SourceError(
                        f"The upload was refused: {one_line(entry.filename, _MAX_NAME)} is larger than allowed, or "
                        "than the archive says."
                    )
                file.write(block)
    except FileExistsError as error:
        name = one_line(entry.filename, _MAX_NAME)
        raise SourceError(f"The upload was refused: {name} is both a file and a folder.") from error
    return written


def _model_folder(folder: Path) -> Path:
    """Return the folder with the files of the model: archives often have one folder around all files."""
    while True:
        inside = list(folder.iterdir())
        if len(inside) != 1 or not inside[0].is_dir():
            return folder
        folder = inside[0]


def name_of_upload(archive: str) -> str:
    """Return a name for the model in an archive: that of the archive, as far as a repository may have it."""
    name = re.sub(r"[^\w.-]+", "-", Path(archive).stem, flags=re.ASCII).strip(".-_")
    return name[:60] or "upload"
