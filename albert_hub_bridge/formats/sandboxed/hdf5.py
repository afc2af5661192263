"""List the datasets of an HDF5 file, and copy those that cannot be mapped from it."""

from __future__ import annotations

import os
from math import prod
from typing import Any, BinaryIO

from h5py import Dataset, File, h5d, h5g, h5l, h5o, h5s, h5t

from .program import decode_path


_MAX_OBJECTS, _MAX_LEVELS, _MAX_NAME_LENGTH = 100_000, 16, 1000
_MAX_CHUNK_BYTES, _BLOCK_BYTES = 16 << 20, 8 << 20
_LINKS = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "a link to another file"}
_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3  # filters


def read(file: str, job: dict[str, Any]) -> dict[str, Any]:
    """Return `{"datasets": [[name, dtype, shape, offset in the file], ...], "problems": [[kind, name, detail], ...]}`.

    The offset is null where the values are not in one run and in little-endian order.

    With `job["names"]`, also write the values of those datasets to the file `job["target"]`, in little-endian order,
    one after the other.
    """
    datasets = _Datasets(file)
    if "names" in job and not datasets.problems:
        with open(decode_path(job["target"]), "wb") as target:
            for name in job["names"]:
                try:
                    _copy(Dataset(datasets.found[name]), target)
                except Exception as error:
                    raise ValueError(f"{type(error).__name__}: {error}, in {name}") from error
    return {"datasets": datasets.rows, "problems": datasets.problems}


class _Datasets:
    """The datasets of a file. Only hard links are followed; all that no writer of weights uses is a problem.

    Attributes:
        rows: Name, dtype, shape and offset of each dataset.
        problems: Kind, name and detail of each problem.
        found: h5py's object of each dataset, by name.
    """

    def __init__(self, file: str) -> None:
        self.rows: list[tuple[str, str, tuple[int, ...], int | None]] = []
        self.problems: list[tuple[str, str, str]] = []
        self.found: dict[str, Any] = {}
        self._addresses: dict[int, str] = {}  # address of an object -> its first name
        self._runs: list[tuple[int, int, str]] = []  # begin and end of values, and the name of their dataset
        self._file = File(file, "r")
        root = h5g.open(self._file.id, b"/")
        self._addresses[h5o.get_info(root).addr] = "/"
        self._read_group(root, "", 0)
        self._refuse_overlaps(os.path.getsize(file))

    def _read_group(self, group: Any, path: str, level: int) -> None:
        if level > _MAX_LEVELS or len(self._addresses) + group.get_num_objs() > _MAX_OBJECTS:
            self._refuse("too much", path, f"expected {_MAX_LEVELS} levels and {_MAX_OBJECTS:,} objects, found more")
            return
        for encoded in list(group):
            name = path + encoded.decode("utf-8", "backslashreplace")
            if len(name) > _MAX_NAME_LENGTH:
                self._refuse("too long", name[:80], f"expected {_MAX_NAME_LENGTH} characters, found {len(name)}")
                continue
            kind = group.links.get_info(encoded).type  # before anything is opened
            if kind != h5l.TYPE_HARD:
                self._refuse("a link", name, f"expected a dataset or a group, found {_LINKS.get(kind, 'a link')}")
                continue
            item = h5o.open(group, encoded)
            address = h5o.get_info(item).addr
            if address in self._addresses:
                self._refuse(
                    "an alias", name, f"expected an object of its own, found that of {self._addresses[address]}"
                )
                continue
            self._addresses[address] = name
            if isinstance(item, h5g.GroupID):
                self._read_group(item, f"{name}/", level + 1)
            elif hasattr(item, "get_create_plist") and hasattr(item, "get_space"):
                self._read_dataset(item, name)
            else:
                self._refuse("unexpected", name, "expected a dataset or a group, found a named type")

    def _read_dataset(self, dataset: Any, name: str) -> None:
        space, layout = dataset.get_space(), dataset.get_create_plist()
        if space.get_simple_extent_type() == h5s.NULL:
            self._refuse("no values", name, "expected values, found a dataset without any")
            return
        shape = tuple(space.get_simple_extent_dims())
        dtype, in_order = _dtype(dataset)
        size = prod(shape) * dataset.get_type().get_size()
        offset, wrong = None, None
        if layout.get_layout() == h5d.VIRTUAL or layout.get_external_count():
            wrong = "expected values in the file itself, found that they are in another file"
        elif odd := [code for code in _filters(layout) if code not in (_DEFLATE, _SHUFFLE, _FLETCHER32)]:
            wrong = f"expected gzip, shuffle, fletcher32 or no filter, found filter {odd[0]}"
        elif layout.get_layout() == h5d.CHUNKED:
            wrong = _wrong_chunks(dataset, shape, layout.get_chunk())
        elif dataset.get_storage_size() != size:
            wrong = f"expected {size:,} bytes of values, found {dataset.get_storage_size():,}"
        elif layout.get_layout() == h5d.CONTIGUOUS:
            offset = dataset.get_offset()
            wrong = "expected values, found none that were ever written" if offset is None else None
        if wrong is not None:
            self._refuse("wrong storage", name, wrong)
            return
        if offset is not None:
            self._runs.append((offset, offset + size, name))
        self.rows.append((name, dtype, shape, offset if in_order else None))
        self.found[name] = dataset

    def _refuse_overlaps(self, size: int) -> None:
        """Refuse values that overlap other values or an object of the file, or end after the file."""
        runs = sorted([*self._runs, *((address, address, name) for address, name in self._addresses.items())])
        end, owner = 0, ""
        for begin, stop, name in runs:
            if begin < end:
                self._refuse("overlap", name, f"expected a place of its own in the file, found that of {owner}")
            if stop > size:
                self._refuse("truncated", name, f"expected values up to byte {stop:,}, found {size:,} bytes")
            if stop > end:
                end, owner = stop, name

    def _refuse(self, kind: str, name: str, detail: str) -> None:
        self.problems.append((kind, name, detail))


def _filters(layout: Any) -> list[int]:
    return [layout.get_filter(index)[0] for index in range(layout.get_nfilters())]


def _wrong_chunks(dataset: Any, shape: tuple[int, ...], chunk: tuple[int, ...]) -> str | None:
    size = prod(chunk) * dataset.get_type().get_size()
    if size > _MAX_CHUNK_BYTES:
        return f"expected chunks of up to {_MAX_CHUNK_BYTES:,} bytes, found {size:,}"
    expected, found = prod(-(-whole // part) for whole, part in zip(shape, chunk)), dataset.get_num_chunks()  # noqa: B905
    return None if expected == found else f"expected {expected:,} chunks, found {found:,} that were ever written"


def _dtype(dataset: Any) -> tuple[str, bool]:
    """Return the name of a dataset's dtype, and whether it is stored in little-endian order."""
    kind = dataset.get_type()
    if isinstance(kind, h5t.TypeOpaqueID) and kind.get_size() == 2:
        # HDF5 has no bfloat16: Keras stores two opaque bytes, and the name of the dtype in an attribute.
        name = Dataset(dataset).attrs.get("dtype")
        return ("bfloat16" if isinstance(name, str) and name == "bfloat16" else "void16"), True
    for bits in (16, 32, 64):
        for order in ("LE", "BE"):
            if kind.equal(getattr(h5t, f"IEEE_F{bits}{order}")):
                return f"float{bits}", order == "LE"
    for bits in (8, 16, 32, 64):
        for order in ("LE", "BE"):
            for sign, name in (("I", "int"), ("U", "uint")):
                if kind.equal(getattr(h5t, f"STD_{sign}{bits}{order}")):
                    return f"{name}{bits}", order == "LE"
    return f"{type(kind).__name__.removeprefix('Type').removesuffix('ID').lower()} of {kind.get_size()} bytes", False


def _copy(dataset: Dataset, target: BinaryIO) -> None:
    """Write the values of a dataset, a few rows at a time."""
    dtype = dataset.dtype.newbyteorder("<")
    if not dataset.shape:
        target.write(dataset[()].astype(dtype).tobytes())
        return
    rows = max(1, _BLOCK_BYTES // max(1, prod(dataset.shape[1:]) * dtype.itemsize))
    for top in range(0, dataset.shape[0], rows):
        target.write(dataset[top : top + rows].astype(dtype, copy=False).tobytes())
