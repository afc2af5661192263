"""The command `albert-hub-bridge`. It parses options, calls the functions in `commands`, and prints their reports.

Exit codes: 0 success; 1 `verify` found a difference; 2 the input is wrong or the target cannot be written, and nothing
was changed.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from typer.core import TyperCommand

from albert_hub_bridge import console, progress
from albert_hub_bridge._version import __version__
from albert_hub_bridge.choices import DEFAULT_PART_ROWS, DEFAULT_TOLERANCE, AdapterLayout
from albert_hub_bridge.commands.options import ConvertOptions
from albert_hub_bridge.console import errors_as_messages
from albert_hub_bridge.hubs.published import PUBLISHED_PRESETS
from albert_hub_bridge.parameters import (
    Actors,
    Address,
    AllowApproximateGelu,
    AllowPickle,
    AsJson,
    BatchTokens,
    Column,
    Compile,
    ComputeDtypeOption,
    CreatePr,
    DeviceOption,
    DropHead,
    DropTokenizer,
    DropUnknown,
    DtypeOption,
    EngineOption,
    Folder,
    GpusPerActor,
    HeadOption,
    HiddenActOption,
    IncludeCode,
    Key,
    Labels,
    Language,
    License,
    MaxLength,
    MaxShardSize,
    Message,
    NoDuplicateWeights,
    NormalizeOption,
    NormalizeVectors,
    Onnx,
    OutputDtypeOption,
    PartRows,
    PoolingOption,
    Private,
    Prompt,
    QuantizeOption,
    Quiet,
    Revision,
    SentenceTransformers,
    SkipInvalid,
    Source,
    Threads,
    To,
    choice,
)


# Every command and every `--help` starts by importing this module. So a command imports what it needs when it runs.
if TYPE_CHECKING:
    from albert_hub_bridge.commands.recording import Recorded
    from albert_hub_bridge.provenance.integrity import FilesCheck
    from albert_hub_bridge.verification.report import Verification

app = typer.Typer(
    help="Convert ALBERT between KerasHub presets and Hugging Face repositories, and verify that nothing changed.",
    no_args_is_help=True,
    rich_markup_mode=None,  # its tables cut the names of options in narrow terminals
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.out().print(__version__)
        raise typer.Exit


class _Command(TyperCommand):
    """A command whose help is whole in narrow terminals, with its options in groups."""

    def get_short_help_str(self, limit: int = 0) -> str:
        """Return the first paragraph of the help, of any length."""
        return " ".join((self.help or "").partition("\n\n")[0].split())

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, the options, and each group of options, which typer does only in tables of rich."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            if (row := parameter.get_help_record(ctx)) is not None:
                default = "Arguments" if parameter.param_type_name == "argument" else "Options"
                groups.setdefault(getattr(parameter, "rich_help_panel", None) or default, []).append(row)
        for title, rows in groups.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


_command = partial(app.command, cls=_Command)


def _hdf5_process_for(source: str) -> AbstractContextManager[None]:
    """Let the process that reads a preset's weights start while this one imports what the command needs."""
    from albert_hub_bridge.formats.sandbox import started_early
    from albert_hub_bridge.layouts.keras.files import WEIGHTS

    is_preset = os.path.isfile(os.path.join(source, WEIGHTS))  # False for any name that a system refuses
    return started_early("hdf5") if is_preset else nullcontext()


def _interrupted(target: str) -> str:
    """Return the message for Ctrl-C. A hub may have received a commit although its answer did not arrive."""
    unknown = f"Interrupted. Look at {target}: it has all of the new version, or nothing of it."
    return unknown if "://" in target else console.INTERRUPTED


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Take the options that belong to no command. Their callbacks do the work."""
    console.out().quiet = False  # of a command before this one, in the same process


@_command()
def convert(
    source: Source,
    target: Annotated[str, typer.Argument(help="Folder to make; or hf://user/repo, to convert, verify and push.")],
    to: To,
    normalize: NormalizeOption = ConvertOptions.normalize,
    dtype: DtypeOption = ConvertOptions.dtype,
    max_shard_size: MaxShardSize = None,
    include_code: IncludeCode = ConvertOptions.include_code,
    drop_head: DropHead = ConvertOptions.drop_head,
    drop_tokenizer: DropTokenizer = ConvertOptions.drop_tokenizer,
    drop_unknown: DropUnknown = ConvertOptions.drop_unknown,  # type: ignore[assignment]
    head: HeadOption = ConvertOptions.head,
    sentence_transformers: SentenceTransformers = ConvertOptions.sentence_transformers,
    hidden_act: HiddenActOption = ConvertOptions.hidden_act,
    allow_pickle: AllowPickle = ConvertOptions.allow_pickle,
    allow_approximate_gelu: AllowApproximateGelu = ConvertOptions.allow_approximate_gelu,
    no_duplicate_weights: NoDuplicateWeights = ConvertOptions.no_duplicate_weights,
    labels: Labels = None,
    license: License = None,  # noqa: A002 (the metadata of a card has this name)
    language: Language = None,
    onnx: Onnx = ConvertOptions.onnx,
    quantize: QuantizeOption = ConvertOptions.quantize,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing preset or repository.")] = False,
    private: Private = False,
    revision: Revision = None,
    create_pr: CreatePr = False,
    message: Message = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Convert a preset or repository to another layout."""
    progress_bar = partial(progress.progress_bar, hidden=as_json)
    with errors_as_messages(as_json, _interrupted(target)), _hdf5_process_for(source):
        from albert_hub_bridge.commands.convert import convert_with
        from albert_hub_bridge.commands.publish import PushOptions

        options = ConvertOptions(
            to=to,
            normalize=normalize,
            dtype=dtype,
            max_shard_size=max_shard_size,
            include_code=include_code,
            drop_head=drop_head,
            drop_tokenizer=drop_tokenizer,
            drop_unknown=drop_unknown,
            head=head,
            sentence_transformers=sentence_transformers,
            hidden_act=hidden_act,
            allow_pickle=allow_pickle,
            allow_approximate_gelu=allow_approximate_gelu,
            no_duplicate_weights=no_duplicate_weights,
            labels=labels,
            license=license,
            language=language,
            onnx=onnx,
            quantize=quantize,
        )
        push_options = PushOptions(private or None, revision, create_pr, message)
        if "://" in target:
            from albert_hub_bridge.commands.pipeline import convert_and_push

            stages = progress.stages_of_verification
            url = convert_and_push(options, source, target, push_options, converting=progress_bar, verifying=stages)
            console.print_url(url, as_json)
            return
        push_options.check_unused(target)
        with progress_bar() as show:
            report = convert_with(options, source, target, overwrite=overwrite, progress=show)
    console.print_report(report, as_json)
    if not as_json:
        console.print_next_command("verify", source, target, *(["--allow-pickle"] if allow_pickle else []))


@_command()
def complete(
    source: Annotated[
        str, typer.Argument(help="Folder of a KerasHub preset or a transformers repository; or hf://user/repo.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the diff of every file, and write nothing.")] = False,
    message: Annotated[str | None, typer.Option(help="Title of the pull request.", metavar="TEXT")] = None,
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
) -> None:
    """Add to a preset or repository what the other library needs to load it. The Hub gets a pull request."""
    from albert_hub_bridge.commands.complete import complete as complete_source

    with errors_as_messages(as_json, _interrupted(source)), progress.stages_of_verification() as stages:
        report = complete_source(source, dry_run=dry_run, message=message, allow_pickle=allow_pickle, progress=stages)
    console.print_report(report, as_json)


@_command()
def convert_adapter(
    source: Annotated[str, typer.Argument(help="KerasHub's file NAME.lora.h5, or the folder of a PEFT adapter.")],
    target: Annotated[str, typer.Argument(help="File (keras) or folder (albert_hub, transformers) to make.")],
    base: Annotated[str, typer.Option(help="Folder of the model that the adapter is for, in any layout.")],
    to: Annotated[
        AdapterLayout,
        choice(
            get_args(AdapterLayout),
            help="keras: a file for KerasHub. albert_hub, transformers: a folder for PEFT on that layout.",
        ),
    ],
    drop_head: Annotated[
        bool,
        typer.Option(
            "--drop-head", help="Drop weights of a head that the target does not support, instead of an error."
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing adapter.")] = False,
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Convert a LoRA adapter between KerasHub and PEFT."""
    from albert_hub_bridge.lora.convert import convert_adapter as convert_lora

    with errors_as_messages(as_json):
        report = convert_lora(
            source, target, base=base, to=to, drop_head=drop_head, overwrite=overwrite, allow_pickle=allow_pickle
        )
    console.print_report(report, as_json)


@_command()
def embed(
    model: Source,
    source: Annotated[
        str,
        typer.Argument(
            help="Texts: a file (.txt, .csv, .jsonl, .parquet), a folder or a pattern of such files, a folder that "
            "datasets saved, or - for the standard input.",
        ),
    ],
    target: Annotated[str, typer.Argument(help="Folder of Parquet files to make or to continue; or a .npy file.")],
    column: Column = None,
    key: Key = None,
    pooling: PoolingOption = None,
    normalize: NormalizeVectors = None,
    prompt: Prompt = None,
    max_length: MaxLength = None,
    dtype: ComputeDtypeOption = "float32",
    output_dtype: OutputDtypeOption = "float32",
    device: DeviceOption = "auto",
    threads: Threads = None,
    batch_tokens: BatchTokens = None,
    compile: Compile = False,  # noqa: A002 (torch's name)
    part_rows: PartRows = DEFAULT_PART_ROWS,
    skip_invalid: SkipInvalid = False,
    engine: EngineOption = "local",
    address: Address = None,
    actors: Actors = None,
    gpus_per_actor: GpusPerActor = 0.0,
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compute the vectors of many texts. An interrupted run continues when it is started again."""
    from albert_hub_bridge.commands.embed import embed as embed_corpus

    interrupted = f"Interrupted. The parts that are written stay. To continue {target}, run the command again."
    with (
        errors_as_messages(as_json, interrupted),
        progress.embedding_bar(hidden=as_json) as show,
        redirect_stdout(sys.stderr),  # Ray prints there that an actor died
    ):
        try:
            report = embed_corpus(
                model,
                source,
                target,
                columns=column or (),
                keys=key or (),
                skip_invalid=skip_invalid,
                output_dtype=output_dtype,
                part_rows=part_rows,
                engine=engine,
                address=address,
                actors=actors,
                gpus_per_actor=gpus_per_actor,
                progress=show,
                pooling=pooling,
                normalize=normalize,
                prompt=prompt,
                max_length=max_length,
                dtype=dtype,
                device=device,
                batch_tokens=batch_tokens,
                compile=compile,
                threads=threads,
                allow_pickle=allow_pickle,
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    console.print_report(report, as_json)


@_command()
def export_onnx(
    folder: Annotated[str, typer.Argument(help="Folder of a repository, in the layout transformers or albert_hub.")],
    quantize: QuantizeOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace ONNX files that are there.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Add ONNX files to a repository, and compare them with it."""
    from albert_hub_bridge.commands.export_onnx import export_onnx as add_onnx

    with errors_as_messages(as_json):
        report = add_onnx(folder, quantize=quantize, overwrite=overwrite)
    console.print_report(report, as_json)


@_command()
def inspect(
    source: Source,
    drop_head: DropHead = False,
    head: HeadOption = None,
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
) -> None:
    """Describe a preset or repository."""
    with errors_as_messages(as_json), _hdf5_process_for(source):
        from albert_hub_bridge.commands.inspect import inspect as inspect_source

        report = inspect_source(source, drop_head=drop_head, head=head, allow_pickle=allow_pickle)
    console.print_report(report, as_json)


@_command()
def verify(
    source: Source,
    target: Annotated[
        str | None,
        typer.Argument(
            help="Folder to compare with SOURCE. Without it, the files of SOURCE are checked against its "
            "conversion.json.",
            show_default=False,
        ),
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option(
            help="File with one text a line, or two with a tab for a pair; built-in texts by default.", dir_okay=False
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(min=0.0, help="Relative tolerance for outputs on texts. Generated inputs use 5 times this value."),
    ] = DEFAULT_TOLERANCE,
    allow_pickle: AllowPickle = False,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes",
            help="If TARGET passes, record it as it is now, although it was changed since its conversion.",
        ),
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Verify that two folders contain the same model; or check one folder against its `conversion.json`."""
    from albert_hub_bridge.commands.verify import check, verify_and_record

    report: FilesCheck | Verification
    recorded: Recorded = "no record"
    with errors_as_messages(as_json):
        if target is None:
            report = check(source)
        else:
            with progress.stages_of_verification() as stages:
                report, recorded = verify_and_record(
                    source,
                    target,
                    texts_file=texts,
                    tolerance=tolerance,
                    allow_pickle=allow_pickle,
                    accept_changes=accept_changes,
                    progress=stages,
                )
    console.print_report(report, as_json)
    if target is not None and not as_json:
        console.print_recorded(recorded, source, target)
    raise typer.Exit(0 if report.passed else 1)


@_command()
def card(folder: Folder, as_json: AsJson = False) -> None:
    """Render the model card of a converted folder again. What you wrote into it stays."""
    from albert_hub_bridge.commands import publish

    with errors_as_messages(as_json):
        console.print_card(publish.card(folder), as_json)


@_command()
def push(
    folder: Folder,
    target: Annotated[str, typer.Argument(help="hf://user/repo or kaggle://user/model/keras/name.")],
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Push a folder that has not passed verify. Its card shows that.")
    ] = False,
    private: Private = False,
    revision: Revision = None,
    create_pr: CreatePr = False,
    message: Message = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Push a converted folder to a hub, in one commit."""
    from albert_hub_bridge.commands import publish

    with errors_as_messages(as_json, _interrupted(target)):
        options = publish.PushOptions(private or None, revision, create_pr, message)
        console.print_url(publish.push_with(options, folder, target, verify=not no_verify), as_json)


@_command(name="list")
def list_published(as_json: AsJson = False) -> None:
    """List the presets that KerasHub publishes and the same checkpoints on Hugging Face."""
    if as_json:
        console.print_json({name: asdict(preset) for name, preset in PUBLISHED_PRESETS.items()})
    else:
        console.print_published(PUBLISHED_PRESETS)


@_command()
def ui(
    port: Annotated[
        int | None,
        typer.Option(
            help="Port of the page; the first free one from 7860 by default.", metavar="NUMBER", min=1, max=65535
        ),
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    allow_local_folders: Annotated[
        bool,
        typer.Option(
            "--allow-local-folders",
            help="Let the page read folders of this machine, such as ./my-preset. Without it, it reads none.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Serve a page on this machine to choose, convert, look and publish. Ctrl-C ends it and removes its files."""
    from albert_hub_bridge.ui.server import serve  # only this command needs it

    def started(address: str) -> None:
        if as_json:
            console.print_json({"url": address})
            sys.stdout.flush()
        else:
            console.out().print(f"The page is at {address} (Ctrl-C ends it)")

    with errors_as_messages(as_json):
        serve(
            host="127.0.0.1",
            port=port,
            open_browser=open_browser,
            local_folders=allow_local_folders,
            started=started,
        )


def main() -> None:
    """Run the command."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a character gets its escape sequence
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="albert-hub-bridge")
