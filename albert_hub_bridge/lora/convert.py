"""The public verb for LoRA adapters: between KerasHub's `save_lora_weights` and PEFT."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from albert_hub_bridge.checkpoint import DroppedTensor, Layout
from albert_hub_bridge.disk.atomic import check_target, check_target_file, new_file, new_folder
from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.errors import SourceError, TargetError
from albert_hub_bridge.layouts.registry import pull, read_checkpoint
from albert_hub_bridge.lora.adapter import Adapter
from albert_hub_bridge.lora.factors import (
    KERAS_DEFAULT,
    LoraLayer,
)
from albert_hub_bridge.lora.keras_file import KERAS_SUFFIX, read_keras_adapter, write_keras_adapter
from albert_hub_bridge.lora.peft_folder import (
    CONFIG,
    OLD_WEIGHTS,
    WEIGHTS,
    is_checkpoint_file,
    read_peft_adapter,
    write_peft_adapter,
)
from albert_hub_bridge.mapping.configs import IgnoredKey
from albert_hub_bridge.mapping.weights import TorchDialect


_DIALECTS: Mapping[Layout, TorchDialect] = {"albert_hub": "albert_hub", "transformers": "albert"}


@dataclass(frozen=True, slots=True)
class AdapterConversion:
    """What was converted, and what was not.

    Args:
        source: What was read.
        target: The file or folder that was made.
        layout: Of the base that the target is for.
        layers: Names of the adapted layers in `AlbertHubModel`.
        ranks: Of every layer in the target, by its name there: `lora/14` in Keras' file.
        dropped: Tensors of the source that are not in the target.
        ignored: Keys of `adapter_config.json` that are not carried over.
        notes: What else the user should know.
    """

    source: str
    target: str
    layout: Layout
    layers: Sequence[str]
    ranks: Mapping[str, int]
    dropped: Sequence[DroppedTensor]
    ignored: Sequence[IgnoredKey]
    notes: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        return asdict(self)


def convert_adapter(
    source: str | Path,
    target: str | Path,
    *,
    base: str | Path,
    to: Layout,
    drop_head: bool = False,
    overwrite: bool = False,
    allow_pickle: bool = False,
) -> AdapterConversion:
    """Convert a LoRA adapter between KerasHub and PEFT, so that it adds the same to every kernel.

    Factors are float32 in the target. From Keras to PEFT and back they are the same bits, and so are they between the
    two layouts of PEFT. From PEFT to Keras the scale is multiplied into them, and those of query, key and value, which
    Keras factorizes by head, get a higher rank: heads * rank, or head_dim where that is less. Keras has one rank for
    the whole file, and zeros where a layer has less.

    Args:
        source: A `.lora.h5` file, as KerasHub's `save_lora_weights` writes it, or the folder of a PEFT adapter.
        target: The `.lora.h5` file or the folder to make. It appears when it is whole, or not at all.
        base: The folder of the model that the adapter is for, in any layout. Its architecture gives the layers and
            the shapes; whether it has a head tells what PEFT calls the layers of an adapter from Keras.
        to: `keras` (a file for KerasHub's `load_lora_weights`), `albert_hub` or `transformers` (a folder for PEFT on that layout
            of the base).
        drop_head: Whether to leave out what an adapter has for a head and the target has no place for, instead of
            refusing it.
        overwrite: Whether to replace an existing target.
        allow_pickle: Whether to read weights that are a pickle, of the base or the adapter, as `convert` does.

    Raises:
        SourceError, CheckpointError: The source or the base cannot be found or is wrong, they do not fit, or the target
            has no place for what the source does. All problems are listed, and nothing was written.
        TargetError: The target exists, or its parent does not, or it has the wrong name. Nothing was written.
        ValueError: There is no such layout.

    Source:
        keras/src/layers/core/{dense,einsum_dense}.py, `enable_lora`; peft/tuners/lora/layer.py, `get_delta_weight`.
    """
    if to not in get_args(Layout):
        raise ValueError(f"to must be one of {', '.join(get_args(Layout))}, not {to!r}.")
    path = Path(os.path.abspath(os.path.expanduser(target)))
    _check_target(path, to, overwrite)
    origin = Path(os.path.expanduser(source))
    if not origin.exists():
        raise SourceError(
            f"The adapter {source} does not exist: expected a .lora.h5 file or a folder of PEFT's, found neither."
        )
    if path.resolve() == origin.resolve():
        raise TargetError(f"The target {target} is the source itself. Choose another target.")
    of_keras = adapter_at(origin)
    with read_checkpoint(pull(base).folder, drop_head=True, allow_pickle=allow_pickle) as checkpoint:
        architecture, base_has_head = checkpoint.architecture, checkpoint.head is not None
    if of_keras:
        adapter = read_keras_adapter(origin, architecture)
    else:
        keep_head = to != "keras"
        adapter = read_peft_adapter(origin, architecture, keep_head, drop_head, allow_pickle)
    notes = []
    if adapter.dtypes != {"float32"}:
        notes.append(
            f"The factors were {', '.join(sorted(adapter.dtypes))}, and are float32, which holds them exactly."
        )
    if to == "keras":
        with new_file(path, overwrite) as file:
            in_target = write_keras_adapter(adapter, file, architecture)
        rank = max(in_target.values())
        ranks = {f"lora/{layer.number}": rank for layer in in_target}
        notes += _keras_notes(adapter, in_target, rank)
    else:
        dialect = _DIALECTS[to]
        with_head = base_has_head if adapter.with_head is None else adapter.with_head
        with new_folder(path, overwrite, is_checkpoint_file, CONFIG) as folder:
            write_peft_adapter(adapter, folder, dialect, with_head)
        ranks = {layer.module(dialect): factors.rank for layer, factors in adapter.factors.items()}
        models = "AutoModelFor... classes" if with_head else "AutoModel"
        notes.append(f"The layers have the names of {models}: PEFT finds no others.")
    return AdapterConversion(
        source=str(source),
        target=str(target),
        layout=to,
        layers=[layer.module("albert_hub") for layer in adapter.factors],
        ranks=ranks,
        dropped=adapter.dropped,
        ignored=adapter.ignored,
        notes=notes,
    )


def _check_target(target: Path, to: Layout, overwrite: bool) -> None:
    if to != "keras":
        check_target(target, overwrite, is_checkpoint_file, CONFIG)
        return
    if not target.name.endswith(KERAS_SUFFIX):
        raise TargetError(f"The target {target} does not end in {KERAS_SUFFIX}, as KerasHub wants it.")
    check_target_file(target, overwrite)


def _keras_notes(adapter: Adapter, in_target: Mapping[LoraLayer, int], rank: int) -> list[str]:
    """Say what Keras does otherwise than the source."""
    notes = []
    higher = {layer: in_target[layer] for layer, each in adapter.factors.items() if in_target[layer] > each.rank}
    if higher:
        affected = ", ".join(dict.fromkeys(layer.keras for layer in higher))
        before = max(adapter.factors[layer].rank for layer in higher)
        notes.append(
            f"Keras shares one factor of {affected} between all heads: "
            f"there rank {before} becomes {max(higher.values())}."
        )
    if lower := [layer for layer in in_target if in_target[layer] < rank]:
        notes.append(f"Keras has one rank for the whole file, {rank}: {len(lower)} layers are filled up with zeros.")
    names = list(dict.fromkeys(layer.keras for layer in in_target))
    if set(names) != KERAS_DEFAULT:
        notes.append(
            f"Call backbone.enable_lora({rank}, target_layer_names={names}) before load_lora_weights, which by itself "
            "loads query and value, and says nothing of the rest."
        )
    return notes


def adapter_at(source: Path) -> bool:
    """Tell whether a source is KerasHub's file, and not PEFT's folder.

    Raises:
        SourceError: It is neither.
        FileError: What would be read in the folder is not a regular file of it.
    """
    if source.is_dir():
        SourceFolder(source, lambda name: name in (CONFIG, WEIGHTS, OLD_WEIGHTS))  # refuses what is no regular file
    elif not source.is_file():
        raise SourceError(f"{source} is neither: expected a {KERAS_SUFFIX} file or a folder, found a pipe or a device.")
    if source.is_file():
        if not source.name.endswith(KERAS_SUFFIX):
            raise SourceError(f"{source} is a file that does not end in {KERAS_SUFFIX}. Of PEFT, pass the folder.")
        return True
    if not (source / CONFIG).is_file():
        raise SourceError(
            f"{source} has no {CONFIG}: expected a {KERAS_SUFFIX} file or the folder of a PEFT adapter, found neither."
        )
    return False
