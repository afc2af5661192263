"""Make each disk call of a conversion fail, one at a time, and check the files that remain.

`tests/kill/test_kill.py` starts this process, with `shim.c` loaded before the C library. Each conversion is a forked
child, because a new process would need a second for its imports. The output is a JSON object: the faults that were
tried, their counts, and every broken guarantee.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import io
import json
import os
import re
import shutil
import signal
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TextIO

import albert_hub_bridge.commands.convert
import albert_hub_bridge.commands.verify  # noqa: F401
from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.cli import app
from albert_hub_bridge.disk.atomic import new_folder
from albert_hub_bridge.disk.staging import is_staging_directory, staging_directory
from albert_hub_bridge.errors import TargetError
from albert_hub_bridge.layouts.registry import is_written_file, write_checkpoint
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint, train_vocabulary


WATCH, KILL, TEAR, FAIL, FAIL_FROM, FULL_FROM, FLIP, SHORTEN = range(8)  # as in the shim
NEVER = -1
UMASK = 0o027

Tree = dict[str, tuple[int, bytes]]


def tree(folder: Path) -> Tree | None:
    """Return everything below a folder but drafts, with its rights; None where there is no folder."""
    if not folder.exists():
        return None
    below = [
        path
        for path in sorted(folder.rglob("*"))
        if not any(map(is_staging_directory, path.relative_to(folder).parents))
    ]
    paths = [folder, *(path for path in below if not is_staging_directory(path))]
    return {str(p.relative_to(folder)): (p.stat().st_mode, b"" if p.is_dir() else p.read_bytes()) for p in paths}


@dataclass(frozen=True)
class Ended:
    """How a child ended: by a signal (negative) or with an exit code, what it said, and which calls it made."""

    code: int
    said: str
    calls: Sequence[str] = ()


class Shim:
    """The library that is loaded before the C library."""

    def __init__(self, file: str) -> None:
        self._library = ctypes.CDLL(file)
        self._library.call.restype = ctypes.c_char_p
        self._library.counted.restype = ctypes.c_long

    @property
    def can_exchange(self) -> bool:
        """Whether two names can be exchanged in one step."""
        return bool(ctypes.c_int.in_dll(self._library, "can_exchange").value)

    @can_exchange.setter
    def can_exchange(self, value: bool) -> None:
        ctypes.c_int.in_dll(self._library, "can_exchange").value = value

    def plan(self, folder: Path, action: int, number: int, at: int) -> None:
        """Watch a folder from now on."""
        self._library.plan(os.fsencode(folder), action, number, ctypes.c_long(at))

    def calls(self) -> list[str]:
        """Return the names of the calls that touched the folder."""
        return [self._library.call(ctypes.c_long(index)).decode() for index in range(self._library.counted())]


@dataclass
class Driver:
    """Runs conversions into one folder, and keeps what went wrong."""

    shim: Shim
    work: Path
    tried: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.place = self.work / "place"
        self.target = self.place / "target"

    def start(self, arguments: Sequence[str], action: int = WATCH, number: int = 0, at: int = NEVER) -> int:
        """Fork a child that runs the command, and return its process number."""
        sys.stdout.flush()
        child = os.fork()
        if child:
            return child
        with (self.work / f"said-{os.getpid()}").open("w") as said:
            self.shim.plan(self.place, action, number, at)
            code = self.child(arguments, said)
            calls = self.shim.calls()
            self.shim.plan(Path(), WATCH, 0, NEVER)
            said.write("\0" + "\n".join(calls))
        os._exit(code)

    def child(self, arguments: Sequence[str], said: TextIO | None = None) -> int:
        """Run the command in this process, and return its exit code."""
        with redirect_stdout(said or io.StringIO()), redirect_stderr(said or io.StringIO()):
            try:
                app(list(arguments))
            except SystemExit as end:
                return end.code if isinstance(end.code, int) else 0
            except BaseException as error:  # what no message was made of
                print(f"{type(error).__name__}: {error}")
        return 99

    def end(self, child: int) -> Ended:
        """Wait for a child."""
        _, status = os.waitpid(child, 0)
        file = self.work / f"said-{child}"
        said, _, calls = file.read_text().partition("\0")
        file.unlink()
        return Ended(os.waitstatus_to_exitcode(status), said, calls.split("\n"))

    def run(self, arguments: Sequence[str], action: int = WATCH, number: int = 0, at: int = NEVER) -> Ended:
        """Run the command in a child."""
        return self.end(self.start(arguments, action, number, at))

    def restore(self, before: Path | None) -> None:
        """Put a target there, or none."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        if before is not None:
            shutil.copytree(before, self.target)

    def left_over(self) -> list[str]:
        """Return what lies beside the target, and drafts of its files."""
        beside = [path.name for path in self.place.iterdir() if path != self.target]
        return beside + [path.name for path in self.target.rglob("*") if is_staging_directory(path)]

    def check(self, what: str, holds: bool, ended: Ended) -> None:
        """Keep a promise that was broken."""
        if not holds:
            self.broken.append(f"{what}; exit {ended.code}, beside it {self.left_over()}, said {ended.said.strip()!r}")


@dataclass(frozen=True)
class Scenario:
    """One command: what it is called, what it writes, the target before it, and trees of the old and the new."""

    name: str
    arguments: Sequence[str]
    writes: Path
    before: Path | None
    old: Tree | None
    new: Tree
    calls: Sequence[str]  # such as `fsync target/config.json`

    @property
    def names(self) -> list[str]:
        """What is called."""
        return [call.partition(" ")[0] for call in self.calls]

    @property
    def moves(self) -> list[int]:
        """Which calls give something its name."""
        return [at for at, name in enumerate(self.names) if name in ("rename", "exchange")]

    @property
    def committed(self) -> int:
        """The first call after the target is the new one."""
        return self.moves[-1] + 1


def sources(work: Path) -> Iterator[Path]:
    """Write two repositories with other weights.

    Not presets: HDF5 is parsed in a process of its own, and each conversion would wait for its start.
    """
    architecture = replace(
        SAMPLE_ARCHITECTURE, vocabulary_size=60, max_sequence_length=8, num_groups=1, num_inner_repetitions=1
    )
    vocabulary = train_vocabulary(60)
    for seed in (1, 2):
        folder = work / f"source-{seed}"
        with new_folder(folder, False, is_written_file) as draft:
            write_checkpoint(random_checkpoint(architecture, vocabulary, seed=seed), draft, "albert_hub")
        yield folder


def scenarios(driver: Driver) -> Iterator[Scenario]:
    """Prepare conversions to a repository and to a preset, where there is nothing and where there is another."""
    one, other = sources(driver.work)
    for to in ("transformers", "keras"):  # so that no child has to import anything
        driver.child(["convert", str(one), str(driver.work / f"warm-{to}"), "--to", to])
    gc.freeze()
    for to in ("transformers", "keras"):
        driver.restore(None)
        old_arguments = ["convert", str(other), str(driver.target), "--to", to]
        old = driver.work / f"old-{to}"
        assert driver.run(old_arguments).code == 0
        shutil.copytree(driver.target, old)
        for overwrite in (False, True):
            arguments = ["convert", str(one), str(driver.target), "--to", to, *["--overwrite"] * overwrite]
            before = old if overwrite else None
            driver.restore(before)
            ended = driver.run(arguments)
            new = tree(driver.target)
            assert ended.code == 0, ended
            assert new is not None
            driver.check("a conversion leaves nothing beside its target", not driver.left_over(), ended)
            name = f"to {to}, {'over an old one' if overwrite else 'where nothing is'}"
            yield Scenario(name, arguments, driver.target, before, tree(old) if overwrite else None, new, ended.calls)


def rendering_a_card(driver: Driver) -> Scenario:
    """Prepare the command that replaces a file of a folder."""
    before, card = driver.work / "old-card", driver.target / "README.md"
    shutil.copytree(driver.work / "old-transformers", before)
    new = tree(before)
    (before / card.name).write_text("")  # any other text would be an edit, which stays
    driver.restore(before)
    ended = driver.run(["card", str(driver.target)])
    assert new is not None
    driver.check("card: the card is the new one", tree(driver.target) == new, ended)
    return Scenario("card", ["card", str(driver.target)], card, before, tree(before), new, ended.calls)


def try_kill(driver: Driver, scenario: Scenario, at: int, action: int, again: bool) -> None:
    """Kill a conversion before a call, or in the middle of a write, and run it again."""
    driver.restore(scenario.before)
    what = f"{scenario.name}: SIGKILL at call {at}, {scenario.calls[at]}"
    ended = driver.run(scenario.arguments, action, 0, at)
    driver.tried["SIGKILL"] += 1
    driver.check(f"{what}: it was killed", ended.code == -signal.SIGKILL, ended)
    expected = scenario.new if at >= scenario.committed else scenario.old
    driver.check(f"{what}: the target is whole", tree(driver.target) == expected, ended)
    if not again:
        with staging_directory(scenario.writes):  # clears up as every run does
            pass
        whole = tree(driver.target) == expected and not driver.left_over()
        driver.check(f"{what}: the next run clears up", whole, ended)
        return
    arguments = scenario.arguments
    if scenario.old is None and expected is not None:
        arguments = [*arguments, "--overwrite"]
    ended = driver.run(arguments)
    driver.check(f"{what}: the next run is well", ended.code == 0 and tree(driver.target) == scenario.new, ended)
    driver.check(f"{what}: the next run clears up", not driver.left_over(), ended)


def try_error(driver: Driver, scenario: Scenario, at: int, action: int, number: int) -> None:
    """Let a call of a conversion fail."""
    driver.restore(scenario.before)
    kind = errno.errorcode[number] + {FAIL: "", FAIL_FROM: " from then on", FULL_FROM: " from then on"}[action]
    what = f"{scenario.name}: {kind} at call {at}, {scenario.calls[at]}"
    ended = driver.run(scenario.arguments, action, number, at)
    driver.tried[kind] += 1
    found = tree(driver.target)
    if action == FAIL_FROM:  # not even clearing up is possible
        whole = found in (scenario.old, scenario.new) and ended.code in (0, 2)
        driver.check(f"{what}: the target is whole", whole, ended)
        return
    if ended.code == 0:  # only clearing up failed
        driver.check(f"{what}: the target is the new one", found == scenario.new and at > scenario.moves[0], ended)
        return
    driver.check(f"{what}: exit code 2", ended.code == 2, ended)
    driver.check(f"{what}: the target is as it was", found == scenario.old, ended)
    driver.check(f"{what}: nothing lies beside it", not driver.left_over(), ended)
    names_it = str(driver.place) in ended.said and os.strerror(number) in ended.said and ended.said.count("\n") == 1
    names_it = names_it and ".albert-hub-bridge-" not in ended.said
    driver.check(f"{what}: the message names file and error", names_it, ended)


def try_lie(driver: Driver, scenario: Scenario, at: int) -> None:
    """Write another bit than was asked for."""
    driver.restore(scenario.before)
    what = f"{scenario.name}: another bit at call {at}"
    ended = driver.run(scenario.arguments, FLIP, 0, at)
    driver.tried["another bit"] += 1
    refused = ended.code == 2 and "What was read back is not what was written" in ended.said
    driver.check(f"{what}: it is noticed", refused, ended)
    driver.check(f"{what}: the target is as it was", tree(driver.target) == scenario.old, ended)


def try_all(driver: Driver, scenario: Scenario, is_tried: Callable[[int, str], bool]) -> None:
    """Try everything at every call."""
    driver.restore(scenario.before)
    ended = driver.run(scenario.arguments, SHORTEN)
    driver.check(f"{scenario.name}: short writes", ended.code == 0 and tree(driver.target) == scenario.new, ended)
    for number in (errno.EACCES, errno.EDQUOT, errno.EROFS):
        try_error(driver, scenario, scenario.names.index("mkdir"), FAIL, number)
    for at, call in enumerate(scenario.names):
        changes = call not in ("open", "read")
        if changes and is_tried(at, "SIGKILL"):
            try_kill(driver, scenario, at, KILL, is_tried(at, "again"))
        if call == "write":
            if is_tried(at, "torn"):
                try_kill(driver, scenario, at, TEAR, is_tried(at, "again"))
            if is_tried(at, "bit"):
                try_lie(driver, scenario, at)
        for number in (errno.EIO, errno.ENOSPC) if changes else (errno.EIO,):
            if is_tried(at, errno.errorcode[number]):
                try_error(driver, scenario, at, FAIL, number)
        if is_tried(at, "full") and call in ("write", "create", "mkdir", "fsync", "ftruncate"):
            try_error(driver, scenario, at, FULL_FROM, errno.ENOSPC)
        if changes and is_tried(at, "broken"):
            try_error(driver, scenario, at, FAIL_FROM, errno.EIO)


def try_without_exchange(driver: Driver, scenario: Scenario) -> None:
    """Let every call go wrong from the moment when an old target is moved away, where names cannot be exchanged."""
    driver.shim.can_exchange = False
    driver.restore(scenario.before)
    scenario = replace(scenario, calls=driver.run(scenario.arguments).calls, name=f"{scenario.name}, in two steps")
    first = scenario.names.index("rename")
    assert scenario.names.count("rename") == 3
    for at in range(first, len(scenario.calls)):
        driver.restore(scenario.before)
        what = f"{scenario.name}: SIGKILL at {scenario.calls[at]}"
        ended = driver.run(scenario.arguments, KILL, 0, at)
        driver.tried["SIGKILL"] += 1
        found = tree(driver.target)
        driver.check(f"{what}: one is there, or none", found in (scenario.old, scenario.new, None), ended)
        driver.check(f"{what}: none for one moment", (found is None) == (at == first + 1), ended)
        with staging_directory(scenario.writes):  # clears up as every run does
            pass
        expected = found or scenario.old
        driver.check(f"{what}: it is back", tree(driver.target) == expected and not driver.left_over(), ended)
        if scenario.names[at] == "rename":
            driver.restore(scenario.before)
            ended = driver.run(scenario.arguments, FAIL, errno.EIO, at)
            driver.tried["EIO"] += 1
            holds = ended.code == 2 and tree(driver.target) == scenario.old and not driver.left_over()
            driver.check(f"{scenario.name}: EIO at {scenario.calls[at]}", holds, ended)
            driver.restore(scenario.before)
            ended = driver.run(scenario.arguments, FAIL_FROM, errno.EIO, at)
            driver.tried["EIO from then on"] += 1
            found = tree(driver.target)
            named = re.search(r"could not be put back, and is (\S+) now", ended.said)
            if found is None and named is not None:  # it said where it is
                found = tree(Path(named[1]))
            what = f"{scenario.name}: EIO from {scenario.calls[at]} on"
            driver.check(f"{what}: one is somewhere", found in (scenario.old, scenario.new), ended)
    driver.shim.can_exchange = True


def race(driver: Driver, overwrite: bool, checkpoints: Sequence[Checkpoint], wins: Sequence[Tree], late: float) -> None:
    """Let two processes make one folder at once."""
    driver.restore(driver.work / "old-transformers" if overwrite else None)
    gun, trigger = os.pipe()
    children = []
    for number, checkpoint in enumerate(checkpoints):
        child = os.fork()
        if not child:
            os.close(trigger)
            os.read(gun, 1)
            time.sleep(late * number)
            said, code, begin = "", 0, time.monotonic()
            put = begin
            try:
                with new_folder(driver.target, overwrite, lambda _: True) as draft:
                    write_checkpoint(checkpoint, draft, "transformers")
                    put = time.monotonic()
            except TargetError as error:
                said, code = str(error), 2
            (driver.work / f"said-{os.getpid()}").write_text(f"{said}\0{begin}\n{put}")
            os._exit(code)
        children.append(child)
    os.close(gun)
    os.close(trigger)
    ended = [driver.end(child) for child in children]
    driver.tried["race"] += 1
    driver.tried["writer that lost"] += sum(one.code == 2 for one in ended)
    times = [[float(moment) for moment in one.calls] for one in ended]
    winners = [number for number, one in enumerate(ended) if one.code == 0]
    for loser in (one for one in ended if one.code != 0):
        clear = "nother process" in loser.said or (not overwrite and f"{driver.target} exists" in loser.said)
        clear = clear and loser.code == 2 and str(driver.target) in loser.said
        driver.check("race: the loser says so", clear, loser)
    one_after_the_other = overwrite and max(begin for begin, _ in times) > min(put for _, put in times)
    driver.check("race: one wins", len(winners) == 1 or (len(winners) == 2 and one_after_the_other), ended[0])
    whole = tree(driver.target) in [wins[number] for number in winners]
    driver.check("race: the target is the winner's", whole and not driver.left_over(), ended[0])


def try_races(driver: Driver, number: int) -> None:
    """Let two processes make one folder, again and again, the second a little later each time."""
    architecture = replace(SAMPLE_ARCHITECTURE, num_groups=1, num_inner_repetitions=1)
    drawn = [random_checkpoint(architecture, seed=seed) for seed in (1, 2)]
    wins = []
    for checkpoint in drawn:
        driver.restore(None)
        with new_folder(driver.target, False, is_written_file) as draft:
            write_checkpoint(checkpoint, draft, "transformers")
        wins.append(tree(driver.target) or {})
    assert wins[0] != wins[1]
    for turn in range(number):
        race(driver, bool(turn % 2), drawn, wins, (turn // 2 % 10) * 1e-3)


def everything(_at: int, _kind: str) -> bool:
    """Try every kind at every call."""
    return True


def a_part(calls: Sequence[str], every_call: bool, at: int, kind: str) -> bool:
    """Try SIGKILL and one error at every call, the rest at some; and of tensors, written alike, one in thirteen.

    Where another scenario makes the same calls, only one in three, and the last ones.
    """
    if not every_call and at < len(calls) - 16 and at % 3:
        return False
    if calls[at] == "write" == calls[at - 1] == calls[at + 1] and at % 13:
        return False
    if calls[at] in ("open", "read"):
        return at % 13 == 0
    every, which = {"SIGKILL": (1, 0), "EIO": (2, 0), "ENOSPC": (2, 1), "again": (4, 0)}.get(kind, (8, len(kind)))
    return at % every == which


def main() -> None:
    """Try what the arguments say: the shim, a folder to work in, and `all` or `some`."""
    file, work, extent = sys.argv[1:]
    os.umask(UMASK)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # it has threads, which do not survive a fork
    driver = Driver(Shim(file), Path(work))
    start = time.monotonic()
    calls: dict[str, Sequence[str]] = {}
    files: dict[str, Sequence[str]] = {}
    modes: set[int] = set()
    for number, scenario in enumerate([*scenarios(driver), rendering_a_card(driver)]):
        if scenario.writes == driver.target:
            calls[scenario.name] = scenario.calls
            files[scenario.name] = [name for name, (mode, _) in scenario.new.items() if stat.S_ISREG(mode)]
        modes |= {mode for mode, _ in scenario.new.values()}
        try_all(
            driver, scenario, everything if extent == "all" else partial(a_part, scenario.names, number not in (1, 2))
        )
        if scenario.old is not None and scenario.writes == driver.target:
            try_without_exchange(driver, scenario)
    try_races(driver, 100)
    seconds = time.monotonic() - start
    found = {"tried": driver.tried, "broken": driver.broken, "calls": calls, "files": files}
    json.dump({**found, "modes": sorted(map(oct, modes)), "seconds": seconds}, sys.stdout)


if __name__ == "__main__":
    main()
