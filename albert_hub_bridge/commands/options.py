"""The options of `convert`: what they may be, and how the command line gives them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from albert_hub_bridge.choices import (
    DTYPE_NAMES,
    PRESET_LAYOUTS,
    TRANSFORMERS_LAYOUTS,
    Dtype,
    HiddenAct,
    LayoutName,
    Normalize,
    Pooling,
    Quantize,
    choose,
)
from albert_hub_bridge.commands.labels import parse_labels
from albert_hub_bridge.errors import TargetError
from albert_hub_bridge.layouts.layout import ReadOptions
from albert_hub_bridge.mapping.heads import HeadKind
from albert_hub_bridge.provenance.card_metadata import parse_languages, parse_license
from albert_hub_bridge.text import join_names


CHOICES: dict[str, tuple[str | None, ...]] = {
    "to": get_args(LayoutName),
    "normalize": get_args(Normalize),
    "dtype": (None, *get_args(Dtype)),
    "head": (None, *get_args(HeadKind)),
    "sentence_transformers": (None, *get_args(Pooling)),
    "hidden_act": (None, *get_args(HiddenAct)),
    "quantize": (None, *get_args(Quantize)),
}


# Options with a syntax of their own, which are kept as what they stand for.
PARSERS: dict[str, Callable[[Any], str | tuple[str, ...]]] = {
    "labels": parse_labels,
    "license": parse_license,
    "language": parse_languages,
}


@dataclass(frozen=True)
class ConvertOptions:
    """The options of `convert`, which documents them. Choices may have any case, and dtypes their short names.

    Raises:
        ValueError: A value is not one of the choices, not a positive size, or not a name of a label, license or
            language. All problems are listed.
        TargetError: The target's layout does not support an option. All problems are listed.
    """

    to: LayoutName
    normalize: Normalize = "keep"
    dtype: Dtype | None = None
    max_shard_size: int | str | None = None
    include_code: bool = False
    drop_head: bool = False
    drop_tokenizer: bool = False
    drop_unknown: Sequence[str] = ()
    head: HeadKind | None = None
    sentence_transformers: Pooling | None = None
    hidden_act: HiddenAct | None = None
    allow_pickle: bool = False
    allow_approximate_gelu: bool = False
    no_duplicate_weights: bool = False
    labels: str | Path | Sequence[str] | None = None
    license: str | None = None
    language: str | Sequence[str] | None = None
    onnx: bool = False
    quantize: Quantize | None = None

    def __post_init__(self) -> None:
        if problems := [*self._wrong_values()]:
            raise ValueError("\n".join(problems))
        if problems := [*self._unsupported()]:
            raise TargetError("\n".join(problems))

    def _wrong_values(self) -> list[str]:
        """Return what is wrong, and give each choice the name by which the code knows it."""
        problems = []
        for name, choices in CHOICES.items():
            try:
                object.__setattr__(self, name, choose(name, getattr(self, name), choices, DTYPE_NAMES))
            except ValueError as error:
                problems.append(str(error))
        for name, parse in PARSERS.items():
            try:
                if (value := getattr(self, name)) is not None:
                    object.__setattr__(self, name, parse(value))
            except ValueError as error:
                problems.append(str(error))
        try:
            _ = self.max_shard_bytes
        except ValueError as error:
            problems.append(str(error))
        if isinstance(self.drop_unknown, str) or not all(isinstance(name, str) for name in self.drop_unknown):
            problems.append(f"drop_unknown is a list of names of tensors, not {self.drop_unknown!r}.")
        else:
            object.__setattr__(self, "drop_unknown", tuple(self.drop_unknown))
        return problems

    def _unsupported(self) -> list[str]:
        problems = []
        if self.include_code and self.to != "albert_hub":
            library = "KerasHub has its" if self.to == "keras" else "transformers has its"
            if self.to == "universal":
                library = "both libraries have their"
            problems.append(
                f"Only the albert_hub layout can include code, and the target's layout is {self.to}: {library} own "
                "code. Leave out --include-code (include_code=True), or convert to albert_hub."
            )
        if self.allow_approximate_gelu and self.layout not in PRESET_LAYOUTS:
            problems.append(
                "Only KerasHub needs an approximate gelu. Leave out --allow-approximate-gelu "
                "(allow_approximate_gelu=True)."
            )
        if self.no_duplicate_weights and self.to != "universal":
            problems.append(
                "Only a universal folder has two files of weights. Leave out --no-duplicate-weights "
                "(no_duplicate_weights=True)."
            )
        if self.sentence_transformers is not None and self.to == "keras":
            problems.append(
                "sentence-transformers loads no KerasHub presets. Convert to transformers or albert_hub instead."
            )
        if self.hidden_act is not None and self.to not in TRANSFORMERS_LAYOUTS:
            problems.append(
                f"Only the layouts transformers and universal have hidden_act, and the target's layout is {self.to}. "
                "Leave out --hidden-act (hidden_act=...), or convert to one of them."
            )
        if self.dtype == "int8" and self.to != "albert_hub":
            problems.append(
                f"Only the albert_hub layout has int8 weights, and the target's layout is {self.to}. Leave out "
                "--dtype int8 (dtype='int8') to dequantize them, or convert to albert_hub."
            )
        if self.dtype == "int8" and self.onnx:
            problems.append(
                "ONNX files are not exported of int8 weights. Leave out --dtype int8 (dtype='int8'): --quantize int8 "
                "adds an ONNX file of int8 weights to a repository of float32."
            )
        if self.quantize is not None and not self.onnx:
            problems.append("Only ONNX files are quantized. Pass --onnx (onnx=True) too.")
        if self.onnx and self.to == "keras":
            problems.append("KerasHub presets have no ONNX files. Convert to transformers or albert_hub instead.")
        return problems

    @property
    def layout(self) -> LayoutName:
        """The layout of the target. KerasHub's importer reads that of transformers, without weights of its own."""
        return "transformers" if self.no_duplicate_weights else self.to

    @property
    def reading(self) -> ReadOptions:
        """How the source is read."""
        return ReadOptions(self.drop_head, tuple(self.drop_unknown), self.head, self.allow_pickle)

    @property
    def max_shard_bytes(self) -> int | None:
        """`max_shard_size` in bytes."""
        return None if self.max_shard_size is None else parse_size(self.max_shard_size)

    def command(self, source: str, target: str) -> str:
        """Return the command that converts a source with these options, as a shell takes it.

        Options with their default are left out.
        """
        words = ["albert-hub-bridge", "convert", source, target]
        for field in fields(self):
            value, option = getattr(self, field.name), f"--{field.name.replace('_', '-')}"
            if value is True:
                words.append(option)
            elif isinstance(value, tuple):
                repeated = field.name == "drop_unknown"
                words += (
                    [word for each in value for word in (option, each)] if repeated else [option, join_names(value)]
                )
            elif value != field.default:
                words += [option, str(value)]
        return shlex.join(words)


def parse_size(size: int | str) -> int:
    """Return a number of bytes.

    Args:
        size: The number, or a text such as `"200MB"` (KB, MB and GB are powers of 1000).

    Raises:
        ValueError: It is not a positive size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(|KB|MB|GB)", str(size).strip().upper())
    number = int(float(match[1]) * {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}[match[2]]) if match else 0
    if number < 1:
        raise ValueError(f"A size is a number of bytes, or a text such as 200MB, not {size!r}.")
    return number
