"""The same input and version give the same bytes, whatever the process is like."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py


ROOT = Path(__file__).parents[2]

SCRIPT = """
import os, sys
from pathlib import Path
classifier, lora, peft, cores, umask = sys.argv[1:]
os.umask(int(umask, 8))
os.cpu_count = lambda: int(cores)
from albert_hub_bridge import convert, convert_adapter
for to in ("keras", "albert_hub", "transformers"):
    convert(classifier, to, to=to)
    convert(classifier, f"{to}-shards", to=to, dtype="bfloat16", max_shard_size="2KB")
convert(classifier, "code", to="albert_hub", include_code=True)
convert(classifier, "uncased", to="keras", normalize="uncased")
convert_adapter(Path(lora) / "every.lora.h5", "peft", base=lora, to="transformers")
convert_adapter(Path(peft) / "adapter", "keras.lora.h5", base=Path(peft) / "base", to="keras")
"""

# Hashes of Python, threads, languages, time zones and homes that differ.
PROCESSES = [
    ("1", "022", {"PYTHONHASHSEED": "1", "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "LC_ALL": "C", "TZ": "UTC"}),
    ("7", "077", {"PYTHONHASHSEED": "2", "RAYON_NUM_THREADS": "3", "LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo"}),
]


def test_the_same_input_gives_the_same_bytes(unpacked: Callable[[str], Path], tmp_path: Path) -> None:
    sources = [str(unpacked(name)) for name in ("keras_hub_classifier", "keras_hub_lora", "peft_model")]
    trees = []
    for number, (cores, umask, variables) in enumerate(PROCESSES):
        here = tmp_path / f"process {number}"
        here.mkdir()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(here / "home"), **variables}
        command = [sys.executable, "-c", SCRIPT, *sources, cores, umask]
        subprocess.run(command, cwd=here, env=environment, check=True, capture_output=True, timeout=120)
        trees.append({str(file.relative_to(here)): file.read_bytes() for file in here.rglob("*") if file.is_file()})
    assert len(trees[0]) > 60
    assert trees[0].keys() == trees[1].keys()
    assert [name for name in trees[0] if trees[0][name] != trees[1][name]] == []
    for name in trees[0]:  # nothing in them was different only because no second had passed
        if name.endswith(".h5"):
            with h5py.File(tmp_path / "process 0" / name) as file:
                names: list[str] = []
                file.visit(names.append)
                assert [each for each in ["/", *names] if h5py.h5g.get_objinfo(file.id, each.encode()).mtime] == []
        assert str(tmp_path).encode() not in trees[0][name], name
