"""Convert LoRA adapters between KerasHub's `save_lora_weights` and PEFT."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from albert_hub_bridge.choices import AdapterLayout, SourceLayoutName, choose
from albert_hub_bridge.disk.atomic import check_target, check_target_file, new_file, new_folder
from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.errors import SourceError, SourceNotFoundError, TargetError
from albert_hub_bridge.layouts.layout import ReadOptions
from albert_hub_bridge.layouts.registry import pull, read_checkpoint
from albert_hub_bridge.lora.adapter import Adapter
from albert_hub_bridge.lora.factors import DEFAULT_LAYERS, LoraLayer
from albert_hub_bridge.lora.keras_file import KERAS_SUFFIX, read_keras_adapter, write_keras_adapter
from albert_hub_bridge.lora.peft_config import BaseName
from albert_hub_bridge.lora.peft_folder import (
    CONFIG,
    OLD_WEIGHTS,
    WEIGHTS,
    is_checkpoint_file,
    read_peft_adapter,
    write_peft_adapter,
)
from albert_hub_bridge.lora.report import AdapterConversion
from albert_hub_bridge.mapping.weights import TorchDialect
from albert_hub_bridge.model.architecture import Architecture


_DIALECTS: Mapping[AdapterLayout, TorchDialect] = {"albert_hub": "albert_hub", "transformers": "albert"}
_LOADED_AS: Mapping[SourceLayoutName, AdapterLayout] = {"universal": "transformers"}  # by PEFT


def convert_adapter(
    source: str | Path,
    target: str | Path,
    *,
    base: str | Path,
    to: AdapterLayout,
    drop_head: bool = False,
    overwrite: bool = False,
    allow_pickle: bool = False,
) -> AdapterConversion:
    """Convert a LoRA adapter between KerasHub and PEFT. It adds the same to every kernel.

    The factors in the target are float32. They are bit-identical after a conversion from Keras to PEFT and back, and
    between the two layouts of PEFT. From PEFT to Keras, they are multiplied by the scale. Query, key and value get a
    higher rank there, because their heads share a factor: heads * rank, or head_dim if that is less. Keras has one rank
    per file, so other layers are padded with zeros.

    Args:
        source: A `.lora.h5` file of KerasHub's `save_lora_weights`, or the folder of a PEFT adapter.
        target: The `.lora.h5` file or the folder to create. It is created as a whole or not at all.
        base: The folder of the base model, in any layout. Its architecture defines layers and shapes. An adapter from
            Keras gets PEFT's names for a model with or without a head, like the base.
        to: `keras` for a file for KerasHub's `load_lora_weights`; `albert_hub` or `transformers` for a folder for PEFT
            on this layout of the base.
        drop_head: Whether to drop tensors of a head that the target does not support, instead of refusing them.
        overwrite: Whether to replace an existing target.
        allow_pickle: Whether to read weights of the base or the adapter that are a pickle, as in `convert`.

    Raises:
        SourceError, CheckpointError: The source or the base does not exist or is invalid, they do not fit, or the
            target does not support the adapter. All problems are listed, and nothing was written.
        TargetError: The target exists, has no parent folder, or has the wrong name. Nothing was written.
        ValueError: `to` is not a layout.

    Source:
        keras/src/layers/core/{dense,einsum_dense}.py, `enable_lora`; peft/tuners/lora/layer.py, `get_delta_weight`.
    """
    layouts: tuple[AdapterLayout, ...] = get_args(AdapterLayout)
    to = choose("to", to, layouts)
    target_path = _check_target(target, to, overwrite)
    source_path = _check_source(source)
    if target_path.resolve() == source_path.resolve():
        raise TargetError(f"The target {target} is the source itself. Choose another target.")
    if source_path.resolve() in target_path.resolve().parents:
        raise TargetError(f"The target {target} is inside the source {source}. Choose another target.")
    from_keras = _is_keras_file(source_path)
    architecture, base_has_head, base_name = _read_base(base, to, allow_pickle)
    if from_keras:
        adapter = read_keras_adapter(source_path, architecture)
    else:
        adapter = read_peft_adapter(
            source_path, architecture, keep_head=to != "keras", drop_head=drop_head, allow_pickle=allow_pickle
        )
    if to == "keras":
        ranks, notes = _write_keras(adapter, target_path, architecture, overwrite)
    else:
        with_head = base_has_head if adapter.with_head is None else adapter.with_head
        ranks, notes = _write_peft(adapter, target_path, _DIALECTS[to], with_head, base_name, overwrite)
    return AdapterConversion(
        source=str(source),
        target=str(target),
        layout=to,
        layers=[layer.module("albert_hub") for layer in adapter.factors],
        ranks=ranks,
        dropped=adapter.dropped,
        ignored=adapter.ignored,
        notes=[*_dtype_notes(adapter), *notes],
    )


def _check_target(target: str | Path, to: AdapterLayout, overwrite: bool) -> Path:
    path = Path(os.path.abspath(os.path.expanduser(target)))
    if to != "keras":
        check_target(path, overwrite, is_checkpoint_file, CONFIG)
        return path
    if not path.name.endswith(KERAS_SUFFIX):
        raise TargetError(f"The target {path} does not end in {KERAS_SUFFIX}, which KerasHub requires.")
    check_target_file(path, overwrite)
    return path


def _check_source(source: str | Path) -> Path:
    path = Path(os.path.expanduser(source))
    if not path.exists():
        raise SourceNotFoundError(
            f"The adapter {source} does not exist: expected a {KERAS_SUFFIX} file or the folder of a PEFT adapter, "
            "found neither."
        )
    return path


def _is_keras_file(source: Path) -> bool:
    """Return whether a source is a file of KerasHub, and not a folder of PEFT.

    Raises:
        SourceError: It is neither.
        FileError: A file in the folder is not a regular file of this folder.
    """
    if source.is_dir():
        SourceFolder(source, lambda name: name in (CONFIG, WEIGHTS, OLD_WEIGHTS))  # refuses other than regular files
        if not (source / CONFIG).is_file():
            raise SourceError(
                f"{source} has no {CONFIG}: expected a {KERAS_SUFFIX} file or the folder of a PEFT adapter, "
                "found neither."
            )
        return False
    if not source.is_file():
        raise SourceError(
            f"{source} is not an adapter: expected a {KERAS_SUFFIX} file or a folder, found a pipe or a device."
        )
    if not source.name.endswith(KERAS_SUFFIX):
        raise SourceError(f"{source} is a file that does not end in {KERAS_SUFFIX}. For PEFT, pass the folder.")
    return True


def _read_base(base: str | Path, to: AdapterLayout, allow_pickle: bool) -> tuple[Architecture, bool, BaseName]:
    """Return the architecture of the base, whether it has a head, and how PEFT loads it."""
    pulled = pull(base)
    with read_checkpoint(pulled.folder, ReadOptions(drop_head=True, allow_pickle=allow_pickle)) as checkpoint:
        name = base_name(pulled.handle) if to in (checkpoint.layout, _LOADED_AS.get(checkpoint.layout)) else BaseName()
        return checkpoint.architecture, checkpoint.head is not None, name


def base_name(handle: str) -> BaseName:
    """Return the name of a folder as the user wrote it, which PEFT itself records; or of a repository."""
    if "://" not in handle:
        return BaseName(handle)
    if not handle.startswith("hf://"):
        return BaseName()
    name, _, revision = handle.removeprefix("hf://").partition("@")
    return BaseName(name, revision or None)


def _write_keras(
    adapter: Adapter, target: Path, architecture: Architecture, overwrite: bool
) -> tuple[dict[str, int], list[str]]:
    """Write the file. Return the ranks by the names of the layers, and notes."""
    with new_file(target, overwrite) as file:
        before_padding = write_keras_adapter(adapter, file, architecture)
    rank = max(before_padding.values())
    return {f"lora/{layer.number}": rank for layer in before_padding}, _keras_notes(adapter, before_padding, rank)


def _write_peft(
    adapter: Adapter,
    target: Path,
    dialect: TorchDialect,
    with_head: bool,
    base: BaseName,
    overwrite: bool,
) -> tuple[dict[str, int], list[str]]:
    """Write the folder. Return the ranks by the names of the layers, and notes."""
    with new_folder(target, overwrite, is_checkpoint_file, CONFIG) as folder:
        write_peft_adapter(adapter, folder, dialect, with_head, base)
    ranks = {layer.module(dialect): factors.rank for layer, factors in adapter.factors.items()}
    classes = "an AutoModelFor... class" if with_head else "AutoModel"
    return ranks, [f"Load the base with {classes}: PEFT finds the layers only by the names of that model."]


def _dtype_notes(adapter: Adapter) -> list[str]:
    if adapter.dtypes == {"float32"}:
        return []
    return [f"The factors were {', '.join(sorted(adapter.dtypes))}. They are float32 now, without rounding."]


def _keras_notes(adapter: Adapter, before_padding: Mapping[LoraLayer, int], rank: int) -> list[str]:
    notes = []
    raised = [layer for layer, factors in adapter.factors.items() if before_padding[layer] > factors.rank]
    if raised:
        names = ", ".join(dict.fromkeys(layer.keras for layer in raised))
        before = max(adapter.factors[layer].rank for layer in raised)
        after = max(before_padding[layer] for layer in raised)
        notes.append(f"In Keras, all heads share one factor of {names}: their rank changes from {before} to {after}.")
    if lower := [layer for layer in before_padding if before_padding[layer] < rank]:
        notes.append(f"Keras has one rank for all layers, {rank}: {len(lower)} layers are padded with zeros.")
    names_in_keras = list(dict.fromkeys(layer.keras for layer in before_padding))
    if set(names_in_keras) != DEFAULT_LAYERS:
        notes.append(
            f"Call backbone.enable_lora({rank}, target_layer_names={names_in_keras}) before load_lora_weights. "
            "Otherwise KerasHub loads only query and value, without a warning."
        )
    return notes
