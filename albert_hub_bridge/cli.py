"""The command `albert-hub-bridge`. It prints what the functions in `albert_hub` return, and decides nothing.

Exit codes: 0 all is well, 1 `verify` found a difference, 2 the input is wrong or the target cannot be written, and
nothing was changed.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from albert_hub_bridge._version import __version__
from albert_hub_bridge.commands import check as checking
from albert_hub_bridge.commands import convert as conversion
from albert_hub_bridge.commands import inspect as inspection
from albert_hub_bridge.commands import publish
from albert_hub_bridge.commands.options import parse_size
from albert_hub_bridge.commands.recording import record_verification
from albert_hub_bridge.console import (
    LAYOUT_NAMES,
    err,
    escape,
    out,
    print_inspection,
    print_json,
    print_losses,
    print_verification,
    two_columns,
)
from albert_hub_bridge.errors import AlbertHubBridgeError
from albert_hub_bridge.hubs.published import PUBLISHED_PRESETS
from albert_hub_bridge.lora import convert as adapters
from albert_hub_bridge.text import first_few
from albert_hub_bridge.verification import run as verification
from albert_hub_bridge.verification.sample_texts import SAMPLE_TEXTS


class Layout(str, Enum):
    """What `convert --to` can write."""

    keras = "keras"
    albert_hub = "albert_hub"
    transformers = "transformers"


class TextNormalization(str, Enum):
    """What `convert --normalize` can do."""

    keep = "keep"
    none = "none"
    uncased = "uncased"


class Pooling(str, Enum):
    """What `convert --sentence-transformers` can write."""

    mean = "mean"
    cls = "cls"


class Dtype(str, Enum):
    """What `convert --dtype` can write."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


app = typer.Typer(
    help="Move ALBERT between KerasHub presets and Hugging Face repositories, and prove that nothing changed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Source = Annotated[
    str,
    typer.Argument(
        help="Folder of a KerasHub preset or a Hub repository; name of a published preset; or kaggle://..., hf://..., "
        "modelscope://..."
    ),
]
AllowPickle = Annotated[
    bool,
    typer.Option(
        "--allow-pickle",
        help="Read weights that are a pickle (pytorch_model.bin): its tensors and nothing else, in another process.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(__version__)
        raise typer.Exit


def _check_size(size: str | None) -> str | None:
    try:
        if size is not None:
            parse_size(size)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return size


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Take the options that belong to no command; their callbacks do the work."""


@app.command()
def convert(
    source: Source,
    target: Annotated[str, typer.Argument(help="Folder to make; or hf://user/repo, to convert, verify and push.")],
    to: Annotated[
        Layout,
        typer.Option(
            help="keras: a KerasHub preset. albert_hub: a repository for this package's classes. "
            "transformers: a repository for transformers alone."
        ),
    ],
    normalize: Annotated[
        TextNormalization,
        typer.Option(
            help="What happens to a text before the vocabulary's own normalization. keep: what the source does. "
            "none: nothing. uncased: lower-case, strip accents, replace old quotes."
        ),
    ] = TextNormalization.keep,
    dtype: Annotated[
        Dtype | None, typer.Option(help="Of the target's weights; that of the source by default.", show_default=False)
    ] = None,
    max_shard_size: Annotated[
        str | None,
        typer.Option(
            help="Weights in one file, such as 200MB; one file by default.", metavar="SIZE", callback=_check_size
        ),
    ] = None,
    include_code: Annotated[
        bool,
        typer.Option(
            "--include-code", help="albert_hub only: add the classes, as Python files for trust_remote_code=True."
        ),
    ] = False,
    drop_head: Annotated[
        bool, typer.Option("--drop-head", help="Leave out heads that the target has no place for, and say so.")
    ] = False,
    sentence_transformers: Annotated[
        Pooling | None,
        typer.Option(
            help="Make the repository a model for sentence-transformers too. mean: a text's vector is the mean of the "
            "states of its tokens. cls: the state of its first token.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the preset or repository that is there, and replace it.")
    ] = False,
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
) -> None:
    """Convert a preset or repository to any layout."""
    with _errors_as_messages(as_json), _progress_bar(hidden=as_json) as progress:
        options: dict[str, Any] = {
            "to": to.value,
            "normalize": normalize.value,
            "dtype": dtype.value if dtype is not None else None,
            "max_shard_size": max_shard_size,
            "include_code": include_code,
            "drop_head": drop_head,
            "sentence_transformers": sentence_transformers.value if sentence_transformers is not None else None,
            "allow_pickle": allow_pickle,
            "progress": progress,
        }
        if "://" in target:
            url = publish.convert_and_push(source, target, options=options)
            if as_json:
                print_json({"url": url})
            else:
                out.print(escape(url))
            return
        report = conversion.convert(source, target, overwrite=overwrite, **options)
    if as_json:
        print_json(report.as_dict())
        return
    names = escape(report.source.source), escape(report.target)
    size = f"{report.source.parameters:,} parameters, {report.dtype}" + (f", {report.head}" if report.head else "")
    out.print(f"[bold]{names[0]}[/] ({report.source.layout}) to [bold]{names[1]}[/] ({report.layout}): {size}")
    if report.changed_texts is not None:
        changed = f"{report.changed_texts} of {report.sample_size} sample texts become other ids than in the source"
        normalization = escape(f"{report.text_normalization} ({report.text_normalization_from})")
        out.print(f"Text normalization of the target: {normalization}; {changed}.")
    print_losses(report)


@app.command()
def convert_adapter(
    source: Annotated[str, typer.Argument(help="KerasHub's file NAME.lora.h5, or the folder of a PEFT adapter.")],
    target: Annotated[str, typer.Argument(help="File (keras) or folder (albert_hub, transformers) to make.")],
    base: Annotated[str, typer.Option(help="Folder of the model that the adapter is for, in any layout.")],
    to: Annotated[
        Layout,
        typer.Option(help="keras: a file for KerasHub. albert_hub, transformers: a folder for PEFT on that layout."),
    ],
    drop_head: Annotated[
        bool, typer.Option("--drop-head", help="Leave out what belongs to a head and has no place, and say so.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the adapter that is there.")] = False,
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
) -> None:
    """Convert a LoRA adapter between KerasHub and PEFT."""
    with _errors_as_messages(as_json):
        report = adapters.convert_adapter(
            source,
            target,
            base=base,
            to=to.value,
            drop_head=drop_head,
            overwrite=overwrite,
            allow_pickle=allow_pickle,
        )
    if as_json:
        print_json(report.as_dict())
        return
    ranks = sorted(set(report.ranks.values()))
    out.print(f"[bold]{escape(report.target)}[/]: a LoRA adapter for {LAYOUT_NAMES[report.layout]}")
    out.print(f"{len(report.ranks)} layers, rank {' to '.join(map(str, dict.fromkeys((ranks[0], ranks[-1]))))}")
    print_losses(report)


@app.command()
def inspect(source: Source, allow_pickle: AllowPickle = False, as_json: AsJson = False) -> None:
    """Say what a preset or repository holds."""
    with _errors_as_messages(as_json):
        report = inspection.inspect(source, allow_pickle=allow_pickle)
    if as_json:
        print_json(report.as_dict())
        return
    out.print(f"[bold]{escape(report.source)}[/]: {LAYOUT_NAMES[report.layout]}")
    print_inspection(report)


@app.command()
def card(folder: Annotated[str, typer.Argument(help="Folder that convert made.")]) -> None:
    """Render a converted folder's model card again; what was written into it by hand stays."""
    with _errors_as_messages(as_json=False):
        out.print(escape(str(publish.card(folder))))


@app.command()
def push(
    folder: Annotated[str, typer.Argument(help="Folder that convert made.")],
    target: Annotated[str, typer.Argument(help="hf://user/repo or kaggle://user/model/keras/name.")],
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Push what verify has not passed; the card says so.")
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to commit to.", metavar="BRANCH")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead.")] = False,
    message: Annotated[str | None, typer.Option(help="Of the commit.", metavar="TEXT")] = None,
) -> None:
    """Push a converted folder to a hub, in one commit."""
    with _errors_as_messages(as_json=False):
        url = publish.push(
            folder,
            target,
            verify=not no_verify,
            private=private or None,
            revision=revision,
            create_pr=create_pr,
            message=message,
        )
    out.print(escape(url))


@app.command(name="list")
def list_published(as_json: AsJson = False) -> None:
    """List the presets that KerasHub publishes and the official transformers checkpoints: sizes, and where they live."""
    if as_json:
        print_json({name: asdict(preset) for name, preset in PUBLISHED_PRESETS.items()})
        return
    for name, preset in PUBLISHED_PRESETS.items():
        size = f"{preset.parameters:,} parameters, {4 * preset.parameters / 1e6:,.0f} MB in float32"
        out.print(f"[bold]{name}[/]  {preset.num_layers} layers of width {preset.hidden_dim}, {size}")
        out.print(f"  kaggle://{preset.kaggle}  (KerasHub preset; its tokenizer does not lower-case)")
        out.print(f"  hf://{preset.hugging_face}  (official transformers repository; its tokenizer lower-cases)")


@app.command()
def verify(
    source: Source,
    target: Annotated[
        str | None,
        typer.Argument(
            help="The folder to compare with; without it, the files of SOURCE are compared with its conversion.json.",
            show_default=False,
        ),
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(help="File with one text a line; a built-in sample by default.", dir_okay=False)
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="Largest absolute difference of outputs that passes.")
    ] = 1e-5,
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
) -> None:
    """Verify that two folders are the same model, or check the files of one against its `conversion.json`."""
    if target is None:
        _check_files(source, as_json)
    with _errors_as_messages(as_json):
        lines = SAMPLE_TEXTS if texts is None else _read_texts(texts)
        with err.status("Loading both sides, and computing"):
            report = verification.verify(source, target, texts=lines, tolerance=tolerance, allow_pickle=allow_pickle)
        recorded = record_verification(Path(target), report)
    if as_json:
        print_json(report.as_dict())
    else:
        print_verification(report)
        if recorded:
            out.print(f"[dim]Written into {escape(target)}/conversion.json and README.md.[/]")
    raise typer.Exit(0 if report.passed else 1)


def _check_files(folder: str, as_json: bool) -> NoReturn:
    with _errors_as_messages(as_json):
        report = checking.check(folder)
    if as_json:
        print_json(report.as_dict())
        raise typer.Exit(0 if report.passed else 1)
    out.print(f"[bold]{escape(report.folder)}[/]: {escape(report.made_by)}")
    out.print(two_columns({change: f"[red]{escape(name)}[/]" for name, change in report.changes.items()}))
    if report.different_tensors:
        out.print(f"[red]Not the tensors that were made:[/] {escape(first_few(report.different_tensors, 10))}")
    if report.others:
        out.print(
            f"[yellow]Not in its record, and no part of a preset or repository:[/] {escape(', '.join(report.others))}"
        )
    if report.passed:
        out.print(f"[bold green]All {report.files} files and {report.tensors} tensors are as they were made.[/]")
    else:
        out.print(f"[bold red]{len(report.changes)} files are not as they were made.[/]")
    raise typer.Exit(0 if report.passed else 1)


def main() -> None:
    """Run the command."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a character gets its number
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app()


@contextmanager
def _errors_as_messages(as_json: bool) -> Iterator[None]:
    """Turn wrong input, and what the system refuses, into one message and exit code 2."""
    try:
        yield
    except (AlbertHubBridgeError, OSError) as error:
        if as_json:
            print_json({"error": str(error)})
        err.print(f"[bold red]Error:[/] {escape(str(error))}")
        raise typer.Exit(2) from error


@contextmanager
def _progress_bar(hidden: bool) -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=err, transient=True, disable=hidden or not err.is_terminal) as bar:
        task = bar.add_task("Converting", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _read_texts(file: Path) -> Sequence[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise AlbertHubBridgeError(f"The file {file} does not exist.") from error
    except UnicodeDecodeError as error:
        raise AlbertHubBridgeError(f"{file} is not UTF-8: {error}. Save it as UTF-8.") from error
    if not lines:
        raise AlbertHubBridgeError(f"{file} has no texts; write one text a line.")
    return lines
