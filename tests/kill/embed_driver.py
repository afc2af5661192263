"""Kill `embed` at every rename and at random calls, and continue. `tests/kill/test_embed.py` starts this process.

As in `tests/kill/driver.py`, each run is a forked child, and `shim.c` ends it before a chosen call that touches the
disk.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import signal
import sys
from pathlib import Path

from tests.kill.driver import KILL, TEAR, UMASK, Driver, Shim, sources, tree


ROWS, PART_ROWS = 25, 10
RANDOM_MOMENTS = 10


def main() -> None:
    """Try what the arguments say: the shim, and a folder to work in."""
    file, work, _ = sys.argv[1:]
    os.umask(UMASK)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # it has threads, which do not survive a fork
    for name in ("pyarrow.parquet", "transformers", "albert_hub_bridge.model.modeling_albert_hub"):
        importlib.import_module(name)
    driver = Driver(Shim(file), Path(work))
    source = next(iter(sources(driver.work)))
    corpus = driver.work / "corpus.txt"
    corpus.write_text("".join(f"{'a bridge joins two banks '[: 3 + n % 20]}\n" for n in range(ROWS)))
    gc.freeze()
    for suffix in ("", ".npy"):
        driver.target = driver.place / f"vectors{suffix}"
        options = ["--part-rows", str(PART_ROWS), "--device", "cpu", "--threads", "1"]
        kill_and_continue(driver, ["embed", str(source), str(corpus), str(driver.target), *options])
        race(driver, ["embed", str(source), str(corpus), str(driver.target), *options])
    json.dump({"tried": driver.tried, "broken": driver.broken}, sys.stdout)


def kill_and_continue(driver: Driver, arguments: list[str]) -> None:
    """Kill a run before each rename and at random calls, and start it again."""
    driver.restore(None)
    ended = driver.run(arguments)
    whole = tree(driver.place)
    assert ended.code == 0, ended
    moments = [at for at, call in enumerate(ended.calls) if call.startswith("rename ")]
    if not driver.target.suffix:  # the parts of a `.npy` file are written in the same way
        moments += random.Random(len(ended.calls)).sample(range(len(ended.calls)), RANDOM_MOMENTS)
    for at in moments:
        driver.restore(None)
        what = f"{driver.target.name}: SIGKILL at call {at}, {ended.calls[at]}"
        in_the_middle = ended.calls[at].startswith("write ")
        killed = driver.run(arguments, TEAR if in_the_middle else KILL, 0, at)
        driver.tried["SIGKILL"] += 1
        driver.check(f"{what}: it was killed", killed.code == -signal.SIGKILL, killed)
        again = driver.run(arguments)
        if driver.target.suffix == ".npy" and again.code == 2:  # the last run was killed when all was done
            driver.check(f"{what}: it says that the target is there", f"{driver.target} exists" in again.said, again)
        else:
            driver.check(f"{what}: the next run is well", again.code == 0, again)
        driver.check(f"{what}: the same bytes as of an undisturbed run", tree(driver.place) == whole, again)


def race(driver: Driver, arguments: list[str]) -> None:
    """Let two processes write one target."""
    driver.restore(None)
    children = [driver.start(arguments) for _ in range(2)]
    ended = [driver.end(child) for child in children]
    driver.tried["race"] += 1
    for loser in (each for each in ended if each.code != 0):
        clear = "nother process is writing" in loser.said or f"{driver.target} exists" in loser.said
        driver.check("race: the loser says so", loser.code == 2 and clear, loser)
    driver.check("race: one wins", any(each.code == 0 for each in ended), ended[0])
    driver.check("race: nothing lies beside the target", not driver.left_over(), ended[0])


if __name__ == "__main__":
    main()
