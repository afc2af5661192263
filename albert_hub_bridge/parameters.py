"""The arguments and options of the commands, with their help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, get_args

import typer

from albert_hub_bridge import console
from albert_hub_bridge.choices import (
    DTYPE_NAMES,
    ComputeDtype,
    Device,
    Dtype,
    Engine,
    HiddenAct,
    LayoutName,
    Normalize,
    OutputDtype,
    Pooling,
    PoolingMode,
    Quantize,
    choose,
)
from albert_hub_bridge.commands.options import CHOICES, PARSERS, parse_size
from albert_hub_bridge.hubs.published import PUBLISHED_PRESETS
from albert_hub_bridge.mapping.heads import HeadKind


def _be_quiet(wanted: bool) -> None:
    if wanted:
        console.out().quiet = True


_MAX_METAVAR = 36  # characters: --help does not break the line of an option


def choice(among: Sequence[str | None], **settings: Any) -> Any:
    """Return an option that takes one of some names, as `choose` does."""
    choices = [choice for choice in among if choice is not None]

    def parse(value: str) -> str:
        try:
            return choose("it", value, choices, DTYPE_NAMES)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error

    metavar = "|".join(choices)
    if len(metavar) > _MAX_METAVAR:
        metavar, settings["help"] = "NAME", f"{settings['help']} One of {', '.join(choices)}."
    return typer.Option(parser=parse, metavar=metavar, autocompletion=lambda: choices, **settings)


def _checked_by(parse: Callable[[str], object]) -> Callable[[str | None], str | None]:
    """Return a callback that refuses the texts that a function cannot parse."""

    def check(text: str | None) -> str | None:
        try:
            if text is not None:
                parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        return text

    return check


def _parsed(name: str, metavar: str, description: str) -> Any:
    """Return an option with a syntax of its own, which one of the `PARSERS` checks."""
    return typer.Option(help=description, metavar=metavar, callback=_checked_by(PARSERS[name]))


def _complete_source(incomplete: str) -> list[str]:
    """Complete the name of a published preset. The shell itself completes folders."""
    return [name for name in PUBLISHED_PRESETS if incomplete and name.startswith(incomplete)]


# What several commands take.
Source = Annotated[
    str,
    typer.Argument(
        help="Folder of a KerasHub preset or a Hub repository; name of a published preset; or kaggle://..., hf://..., "
        "modelscope://...",
        autocompletion=_complete_source,
    ),
]
Folder = Annotated[str, typer.Argument(help="Folder that convert made.")]
AllowPickle = Annotated[
    bool,
    typer.Option(
        "--allow-pickle",
        help="Read weights from a pickle (pytorch_model.bin). A separate process reads only its tensors.",
    ),
]
AllowApproximateGelu = Annotated[
    bool,
    typer.Option(
        "--allow-approximate-gelu",
        help="keras, universal: compute gelu by its tanh approximation, as KerasHub does, and report how much that "
        "changes.",
    ),
]
NoDuplicateWeights = Annotated[
    bool,
    typer.Option(
        "--no-duplicate-weights",
        help="universal: only the weights of transformers, which KerasHub reads by its own importer. An encoder in "
        "float32 alone.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="Print the report only if something was not converted or differs, and no progress.",
        callback=_be_quiet,
    ),
]

# The options of `convert`; `ConvertOptions` has their defaults.
To = Annotated[
    LayoutName,
    choice(
        CHOICES["to"],
        help="Layout of the target. keras: a KerasHub preset. albert_hub: a repository for this package's classes. "
        "transformers: a repository for transformers alone. universal: a preset and such a repository in one folder.",
    ),
]
NormalizeOption = Annotated[
    Normalize,
    choice(
        CHOICES["normalize"],
        help="Text normalization before the vocabulary's own. keep: the same as in the source. none: nothing. "
        "uncased: lower-case, strip accents, replace old quotes, split numbers from commas (`1984,`).",
    ),
]
DtypeOption = Annotated[
    Dtype | None,
    choice(
        CHOICES["dtype"],
        help="Dtype of the target's weights, or fp32, bf16, fp16; that of the source by default, and float32 for one "
        "in int8. int8: keep the int8 weights of the source, in the albert_hub layout.",
        show_default=False,
    ),
]
MaxShardSize = Annotated[
    str | None,
    typer.Option(
        help="Largest size of the weights in one file, such as 200MB; one file by default.",
        metavar="SIZE",
        callback=_checked_by(parse_size),
    ),
]
IncludeCode = Annotated[
    bool,
    typer.Option(
        "--include-code", help="albert_hub only: include the Python files of the classes, for trust_remote_code=True."
    ),
]
DropHead = Annotated[
    bool, typer.Option("--drop-head", help="Drop a head that the target does not support, instead of an error.")
]
DropTokenizer = Annotated[
    bool,
    typer.Option(
        "--drop-tokenizer",
        help="Drop what is no SentencePiece vocabulary of the tokenizer, such as added tokens, instead of an error.",
    ),
]
DropUnknown = Annotated[
    list[str],
    typer.Option(
        help="Drop this tensor, which no ALBERT has, instead of an error. Give the option once for each tensor.",
        metavar="TENSOR",
        show_default=False,
    ),
]
HeadOption = Annotated[
    HeadKind | None,
    choice(
        CHOICES["head"],
        help="The head of a repository that names no class, where its tensors and settings do not tell it.",
        show_default=False,
    ),
]
SentenceTransformers = Annotated[
    Pooling | None,
    choice(
        CHOICES["sentence_transformers"],
        help="Also make the repository a model for sentence-transformers. mean: the vector of a text is the mean of "
        "its tokens' states. cls: the state of its first token.",
        show_default=False,
    ),
]
HiddenActOption = Annotated[
    HiddenAct | None,
    choice(
        CHOICES["hidden_act"],
        help="transformers, universal: what config.json calls the activation, gelu_pytorch_tanh by default. gelu_new: "
        "the same function, for programs that only know this name. transformers computes it more slowly.",
        show_default=False,
    ),
]
Labels = Annotated[
    str | None,
    _parsed(
        "labels", "NAMES", "Names of a classifier's labels, such as negative,positive; or a file with one name a line."
    ),
]
License = Annotated[
    str | None,
    _parsed("license", "NAME", "License for the model card, such as apache-2.0; that of the source's card by default."),
]
Language = Annotated[
    str | None,
    _parsed("language", "CODES", "Languages for the model card, such as en,fr; those of the source's card by default."),
]

Onnx = Annotated[
    bool, typer.Option("--onnx", help="Also add onnx/model.onnx to a repository: its model for ONNX Runtime.")
]
QuantizeOption = Annotated[
    Quantize | None,
    choice(CHOICES["quantize"], help="Also add onnx/model_quantized.onnx, with int8 weights.", show_default=False),
]

# The options of `embed`; `Embedder` has their defaults.
Column = Annotated[
    list[str] | None,
    typer.Option(
        help="Column of the texts; give it twice for pairs. The column text, or the only one, by default.",
        metavar="NAME",
        show_default=False,
    ),
]
Key = Annotated[
    list[str] | None,
    typer.Option(
        help="Column of texts or integers to write next to the vectors. Give the option once for each column.",
        metavar="NAME",
        show_default=False,
    ),
]
PoolingOption = Annotated[
    PoolingMode | None,
    choice(
        get_args(PoolingMode),
        help="mean of the tokens' states, state of [CLS] (cls), output of the pooler, or none: a vector of each token. "
        "What the repository's files for sentence-transformers say, or mean, by default.",
        show_default=False,
    ),
]
NormalizeVectors = Annotated[
    bool | None,
    typer.Option(
        "--normalize/--no-normalize",
        help="Divide vectors by their length. What the files for sentence-transformers say, or not, by default.",
        show_default=False,
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(help="Put this before each text.", metavar="TEXT", show_default=False),
]
MaxLength = Annotated[
    int | None,
    typer.Option(
        help="Largest number of tokens; longer texts are cut. That of the model by default.",
        metavar="TOKENS",
        min=1,
        show_default=False,
    ),
]
ComputeDtypeOption = Annotated[
    ComputeDtype, choice(get_args(ComputeDtype), help="What the model computes in; also fp32, bf16, fp16.")
]
OutputDtypeOption = Annotated[OutputDtype, choice(get_args(OutputDtype), help="Dtype of the vectors in TARGET.")]
DeviceOption = Annotated[Device, choice(get_args(Device), help="auto: a GPU if there is one.")]
Threads = Annotated[int | None, typer.Option(help="Threads that compute.", metavar="NUMBER", min=1, show_default=False)]
BatchTokens = Annotated[
    int | None,
    typer.Option(
        help="Largest number of tokens that are computed at once.", metavar="TOKENS", min=1, show_default=False
    ),
]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the model with torch.compile, which takes a minute.")]
PartRows = Annotated[int, typer.Option(help="Number of rows of a Parquet file.", metavar="ROWS", min=1)]
SkipInvalid = Annotated[
    bool, typer.Option("--skip-invalid", help="A row without a text gets no vector, instead of an error.")
]
_ON_RAY = "Options for a cluster of Ray"
EngineOption = Annotated[
    Engine,
    choice(
        get_args(Engine),
        help="Compute in this process (local), or with actors of Ray on one or more machines.",
        rich_help_panel=_ON_RAY,
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Address of the cluster; that of RAY_ADDRESS, or a new one on this machine, by default.",
        metavar="ADDRESS",
        rich_help_panel=_ON_RAY,
        show_default=False,
    ),
]
Actors = Annotated[
    int | None,
    typer.Option(
        help="Number of actors, each with a model; as many as the cluster has room for, by default.",
        metavar="NUMBER",
        min=1,
        rich_help_panel=_ON_RAY,
        show_default=False,
    ),
]
GpusPerActor = Annotated[
    float,
    typer.Option(
        help="GPUs of an actor, also a fraction. With 0 it computes on a CPU.",
        metavar="NUMBER",
        min=0,
        rich_help_panel=_ON_RAY,
    ),
]

# How to push; `PushOptions` has their defaults.
_ON_A_HUB = "Options for a target on a hub"
Private = Annotated[bool, typer.Option("--private", help="Make a new repository private.", rich_help_panel=_ON_A_HUB)]
Revision = Annotated[str | None, typer.Option(help="Branch to commit to.", metavar="BRANCH", rich_help_panel=_ON_A_HUB)]
CreatePr = Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead.", rich_help_panel=_ON_A_HUB)]
Message = Annotated[
    str | None,
    typer.Option(
        help="Message of the commit; by default it says what changes.", metavar="TEXT", rich_help_panel=_ON_A_HUB
    ),
]
