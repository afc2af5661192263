"""What runs in a process of its own (`sandbox.py`): libraries that parse what strangers made, with little memory.

This file is a program, and imports nothing of the package. On its first line comes the job, an object of JSON with
`path`, which is `sys.path`, and `task`. It says `{"ready": true}` when its libraries are imported, and then:

hdf5        of each of `files`, `{"datasets": [...], "problems": [...]}`; and for each line `[number of the file, name]`
            that follows, `{"bytes": size}` and the values of the dataset in little-endian order
pytorch     writes the tensors of the pickle `file` to the safetensors file `target`

Where something fails it says `{"failed": why}`. Names of files are hexadecimal.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import sys
import warnings
import zipfile
from math import prod
from typing import Any, BinaryIO


_MOST_OBJECTS, _MOST_LEVELS, _LONGEST_NAME = 100_000, 16, 1000
_MOST_CHUNK_BYTES, _SLAB_BYTES = 16 << 20, 8 << 20
_MEMORY = 128 << 20  # beyond what Python and its libraries have by themselves
_SECONDS = 600  # of the processor: for one that nobody waits for any more


def main() -> None:
    """Do the job."""
    lines, out = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    job = json.loads(lines.readline())
    sys.path[:] = job["path"]
    try:
        if job["task"] == "hdf5":
            _hdf5(job, lines, out)
        else:
            _pytorch(job, out)
    except Exception as error:  # damaged files raise whatever the damage leads to
        reason = (str(error) or type(error).__name__).splitlines()[0]
        _say(out, {"failed": reason if isinstance(error, ValueError) else f"{type(error).__name__}: {reason}"})


def _say(out: BinaryIO, answer: dict[str, Any]) -> None:
    out.write(json.dumps(answer).encode() + b"\n")
    out.flush()


def _path(name: str) -> str:
    return os.fsdecode(bytes.fromhex(name))


def _limit_resources(memory: int, written: int) -> None:
    """Take memory, time and files from this process; where the system has no such limits it goes without."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return
    for name, most in {"AS": now + memory, "CPU": _SECONDS, "FSIZE": written, "CORE": 0, "NOFILE": 256}.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (soft, soft))


def _pytorch(job: dict[str, Any], out: BinaryIO) -> None:
    import torch
    from safetensors.torch import save_file

    file = _path(job["file"])
    torch.set_num_threads(1)
    size = os.path.getsize(file)
    _limit_resources(_MEMORY + 3 * size, 2 * size + _MEMORY)
    _say(out, {"ready": True})
    warnings.simplefilter("ignore")  # what it says of how it was pickled: what counts is what comes out
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:  # torch goes on to tell how to run it all the same
        wanted = re.search(r"GLOBAL (\S+)|Unsupported (?:class|operand) (\S+)", str(error))
        raise ValueError(f"a pickle that wants {wanted[0] if wanted else 'something else'}") from error
    if not isinstance(content, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in content.values()):
        raise ValueError("something else than a table of tensors")
    if odd := [str(name) for name, tensor in content.items() if tensor.layout != torch.strided or tensor.is_meta]:
        raise ValueError(f"sparse tensors, or tensors without values: {', '.join(odd[:5])}")
    if huge := [name for name, tensor in content.items() if tensor.numel() * tensor.element_size() > 2 * size]:
        raise ValueError(f"tensors that are larger than the file: {', '.join(map(str, huge[:5]))}")
    if len({str(name) for name in content}) < len(content):
        raise ValueError("two tensors of one name")
    # Of one memory there may be several views, which safetensors does not know.
    save_file(
        {str(name): tensor.detach().clone().contiguous() for name, tensor in content.items()}, _path(job["target"])
    )
    _say(out, {})


def _hdf5(job: dict[str, Any], lines: BinaryIO, out: BinaryIO) -> None:
    import h5py  # noqa: F401

    _limit_resources(_MEMORY, 0)
    _say(out, {"ready": True})
    opened: list[dict[str, Any]] = []
    for name in job["files"]:
        try:
            walk = _Walk(_path(name))
            opened.append(walk.found)
            _say(out, {"datasets": walk.rows, "problems": walk.problems})
        except Exception as error:  # what h5py raises on damaged files is of many kinds
            opened.append({})
            _say(out, {"failed": f"{type(error).__name__}: {error}"})
    for line in lines:
        number, name = json.loads(line)
        _give(out, opened[number][name])


class _Walk:
    """Every dataset of a file, by hard links alone, and everything that no writer of weights does.

    Attributes:
        rows: Name, shape, dtype, and offset of the values in the file, or None where they do not lie in one run.
        problems: Kind, name and detail, as `errors.Problem` has them.
        found: The datasets, by name.
    """

    def __init__(self, file: str) -> None:
        import h5py

        self.rows: list[tuple[str, tuple[int, ...], str, int | None]] = []
        self.problems: list[tuple[str, str, str]] = []
        self.found: dict[str, Any] = {}
        self._places: dict[int, str] = {}  # address of an object -> its first name
        self._runs: list[tuple[int, int, str]] = []  # begin and end of values, and whose they are
        self._file = h5py.File(file, "r")
        root = h5py.h5g.open(self._file.id, b"/")
        self._places[h5py.h5o.get_info(root).addr] = "/"
        self._group(root, "", 0)
        self._refuse_overlaps(os.path.getsize(file))

    def _group(self, group: Any, path: str, level: int) -> None:
        from h5py import h5g, h5l, h5o

        if level > _MOST_LEVELS or len(self._places) + group.get_num_objs() > _MOST_OBJECTS:
            self._refuse("too much", path, f"expected {_MOST_LEVELS} levels and {_MOST_OBJECTS:,} objects, found more")
            return
        links = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "a link to another file"}
        for encoded in list(group):
            name = path + encoded.decode("utf-8", "backslashreplace")
            if len(name) > _LONGEST_NAME:
                self._refuse("too long", name[:80], f"expected {_LONGEST_NAME} characters, found {len(name)}")
                continue
            kind = group.links.get_info(encoded).type  # before anything is opened
            if kind != h5l.TYPE_HARD:
                self._refuse("a link", name, f"expected a dataset or a group, found {links.get(kind, 'a link')}")
                continue
            item = h5o.open(group, encoded)
            address = h5o.get_info(item).addr
            if address in self._places:
                self._refuse("an alias", name, f"expected an object of its own, found that of {self._places[address]}")
                continue
            self._places[address] = name
            if isinstance(item, h5g.GroupID):
                self._group(item, f"{name}/", level + 1)
            elif hasattr(item, "get_create_plist") and hasattr(item, "get_space"):
                self._dataset(item, name)
            else:
                self._refuse("unexpected", name, "expected a dataset or a group, found a named type")

    def _dataset(self, dataset: Any, name: str) -> None:
        from h5py import h5d, h5s

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
        elif odd := [code for code in _filters(layout) if code not in (1, 2, 3)]:
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
        self.rows.append((name, shape, dtype, offset if in_order else None))
        self.found[name] = dataset

    def _refuse_overlaps(self, size: int) -> None:
        """Refuse values that lie where others do, or the file's own structure does, or where the file has ended."""
        places = sorted([*self._runs, *((address, address, name) for address, name in self._places.items())])
        end, owner = 0, ""
        for begin, stop, name in places:
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
    if size > _MOST_CHUNK_BYTES:
        return f"expected chunks of up to {_MOST_CHUNK_BYTES:,} bytes, found {size:,}"
    expected, found = prod(-(-whole // part) for whole, part in zip(shape, chunk)), dataset.get_num_chunks()  # noqa: B905
    return None if expected == found else f"expected {expected:,} chunks, found {found:,} that were ever written"


def _dtype(dataset: Any) -> tuple[str, bool]:
    """Return the name of a dataset's dtype, and whether it is stored in little-endian order."""
    from h5py import Dataset, h5t

    kind = dataset.get_type()
    if isinstance(kind, h5t.TypeOpaqueID) and kind.get_size() == 2:
        # HDF5 has no bfloat16: Keras stores two opaque bytes and says so in an attribute.
        said = Dataset(dataset).attrs.get("dtype")
        return ("bfloat16" if isinstance(said, str) and said == "bfloat16" else "void16"), True
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


def _give(out: BinaryIO, dataset: Any) -> None:
    """Write the values of a dataset, a few rows at a time."""
    from h5py import Dataset

    values = Dataset(dataset)
    kind = values.dtype.newbyteorder("<")
    size = prod(values.shape) * kind.itemsize
    _say(out, {"bytes": size})
    if not values.shape:
        out.write(values[()].astype(kind).tobytes())
    else:
        rows = max(1, _SLAB_BYTES // max(1, size // values.shape[0]))
        for top in range(0, values.shape[0], rows):
            out.write(values[top : top + rows].astype(kind, copy=False).tobytes())
    out.flush()


if __name__ == "__main__":
    main()
