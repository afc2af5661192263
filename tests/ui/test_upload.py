"""Uploads: hostile archives are refused with a reason, and write nothing outside their folder."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from albert_hub_bridge.errors import SourceError
from albert_hub_bridge.ui.limits import Limits
from albert_hub_bridge.ui.upload import name_of_upload, unpack


LIMITS = Limits(unpacked_bytes=4_000_000, entries=20)
Archive = Callable[[zipfile.ZipFile], object]


def add_link(archive: zipfile.ZipFile) -> None:
    entry = zipfile.ZipInfo("config.json")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(entry, "/etc/passwd")


def _device(archive: zipfile.ZipFile) -> None:
    entry = zipfile.ZipInfo("config.json")
    entry.external_attr = (stat.S_IFCHR | 0o666) << 16
    archive.writestr(entry, "")


def _twice(archive: zipfile.ZipFile) -> None:
    archive.writestr("a/config.json", "{}")
    archive.writestr("a/Config.json", "[]")


def _file_and_folder(archive: zipfile.ZipFile) -> None:
    archive.writestr("model", "x")
    archive.writestr("model/config.json", "{}")


# fmt: off
REFUSED: dict[str, tuple[Archive, str]] = {
    "parent":         (lambda a: a.writestr("../config.json", "{}"),              "leads out of the folder"),
    "deep parent":    (lambda a: a.writestr("a/../../config.json", "{}"),         "leads out of the folder"),
    "absolute":       (lambda a: a.writestr("/tmp/config.json", "{}"),            "leads out of the folder"),
    "backslash":      (lambda a: a.writestr("..\\config.json", "{}"),             "no plain name"),
    "drive":          (lambda a: a.writestr("C:config.json", "{}"),               "no plain name"),
    "control":        (lambda a: a.writestr("con\x1bfig.json", "{}"),             "no plain name"),
    "long name":      (lambda a: a.writestr("a" * 300, "{}"),                     "no plain name"),
    "nested":         (lambda a: a.writestr("a/" * 20 + "config.json", "{}"),     "nested too deeply"),
    "link":           (add_link,                                                   "is a link"),
    "device":         (_device,                                                   "is a link or a device"),
    "twice":          (_twice,                                                    "twice"),
    "file as folder": (_file_and_folder,                                          "both a file and a folder|is no zip"),
    "bomb":           (lambda a: a.writestr("a", b"\0" * 3_000_000, zipfile.ZIP_DEFLATED), "compressed more than 200"),
    "too large":      (lambda a: a.writestr("a", b"\0" * 5_000_000, zipfile.ZIP_STORED),   "unpacks to 0.01 GB"),
    "many":           (lambda a: [a.writestr(str(i), "") for i in range(30)],     "has 30 entries"),
    "pickle":         (lambda a: a.writestr("pytorch_model.bin", b"\x80\x02."),   "is a pickle.*this page reads none"),
    "other pickle":   (lambda a: a.writestr("m/optimizer.PT", b"\x80\x02."),      "is a pickle"),
    "method":         (lambda a: a.writestr("a", "b", zipfile.ZIP_LZMA),          "another way than deflate"),
    "empty":          (lambda a: None,                                            "empty archive"),
}
# fmt: on


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_archives_are_refused(name: str, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    with zipfile.ZipFile(tmp_path / "upload.zip", "w") as archive:
        make(archive)
    (tmp_path / "folder").mkdir()
    with pytest.raises(SourceError, match=f"(?s){message}"):
        unpack(tmp_path / "upload.zip", tmp_path / "folder", LIMITS)
    assert {path.name for path in tmp_path.iterdir()} == {"upload.zip", "folder"}, "nothing is written elsewhere"
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def _patched(content: bytes, signature: bytes, offset: int, layout: str, value: int) -> bytes:
    """Change a field of an entry's header."""
    start = content.index(signature) + offset
    return content[:start] + struct.pack(layout, value) + content[start + struct.calcsize(layout) :]


def _archive(content: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("model.safetensors", content)
    return file.getvalue()


def claim_three_gigabytes() -> bytes:
    """Return an archive with 5 bytes that says that it has 3 GB."""
    return _patched(_archive(b"small"), b"PK\1\2", 24, "<I", 3_000_000_000)


def test_claim_of_three_gigabytes_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "upload.zip").write_bytes(claim_three_gigabytes())
    (tmp_path / "folder").mkdir()
    with pytest.raises(SourceError, match=r"unpacks to 3\.00 GB"):
        unpack(tmp_path / "upload.zip", tmp_path / "folder", Limits())
    assert not list((tmp_path / "folder").iterdir())


def test_data_beyond_the_claim_is_not_written(tmp_path: Path) -> None:
    """The table of contents says 5 bytes, and the data unpack to 3 MB."""
    content = _patched(_archive(b"x" * 3_000_000, zipfile.ZIP_DEFLATED), b"PK\1\2", 24, "<I", 5)
    (tmp_path / "upload.zip").write_bytes(content)
    (tmp_path / "folder").mkdir()
    with pytest.raises(SourceError):
        unpack(tmp_path / "upload.zip", tmp_path / "folder", LIMITS)
    assert sum(path.stat().st_size for path in (tmp_path / "folder").iterdir()) <= 5


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x02not a zip", _archive(b"x" * 100)[:60]], ids=range(4))
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "upload.zip").write_bytes(content)
    (tmp_path / "folder").mkdir()
    with pytest.raises(SourceError, match="no zip archive"):
        unpack(tmp_path / "upload.zip", tmp_path / "folder", LIMITS)


def test_encrypted_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "upload.zip").write_bytes(_patched(_archive(b"secret"), b"PK\1\2", 8, "<H", 1))
    (tmp_path / "folder").mkdir()
    with pytest.raises(SourceError, match="is encrypted"):
        unpack(tmp_path / "upload.zip", tmp_path / "folder", LIMITS)


@pytest.mark.parametrize("prefix", ["", "my-model/", "outer/my-model/"])
def test_folder_of_the_model_is_found(prefix: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "upload.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{prefix}config.json", "{}")
        archive.writestr(f"{prefix}assets/tokenizer/vocabulary.spm", b"x" * 10)
        archive.writestr("__MACOSX/._config.json", "")
        archive.writestr(f"{prefix}.DS_Store", "")
    (tmp_path / "folder").mkdir()
    folder = unpack(tmp_path / "upload.zip", tmp_path / "folder", LIMITS)
    assert folder == tmp_path / "folder" / prefix
    assert (folder / "config.json").read_text() == "{}"
    assert {path.name for path in folder.iterdir()} == {"config.json", "assets"}


def test_names_of_uploads() -> None:
    assert name_of_upload("my model (1).zip") == "my-model-1"
    assert name_of_upload("../../etc/passwd.zip") == "passwd"
    assert name_of_upload("日本.zip") == "upload"
