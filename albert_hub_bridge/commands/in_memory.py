"""Convert models in memory: between live models of KerasHub and of transformers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.choices import DTYPE_NAMES, ComputeDtype, Normalize, choose
from albert_hub_bridge.commands.adaptation import adapt
from albert_hub_bridge.commands.notes import notes_in_memory
from albert_hub_bridge.commands.options import ConvertOptions
from albert_hub_bridge.disk.atomic import new_folder
from albert_hub_bridge.errors import SourceError
from albert_hub_bridge.formats.lazy_tensors import dtype_name
from albert_hub_bridge.layouts.hub.spelling import SPELLINGS, RepositoryLayout
from albert_hub_bridge.layouts.registry import is_written_file, write_checkpoint
from albert_hub_bridge.runtime import live_keras, live_transformers
from albert_hub_bridge.runtime.backbone import AlbertBackbone
from albert_hub_bridge.runtime.stored_weights import as_checkpoint


if TYPE_CHECKING:
    import torch


def to_transformers(
    keras_model: Any,
    layout: RepositoryLayout = "transformers",
    *,
    preprocessor: Any = None,
    normalize: Normalize = "keep",
    dtype: ComputeDtype | torch.dtype | None = None,
    labels: str | Path | Sequence[str] | None = None,
    drop_head: bool = False,
    drop_unknown: Sequence[str] = (),
) -> tuple[Any, Any]:
    """Convert a live model of KerasHub into a model and a tokenizer of transformers. No weights are written to files.

    Where Keras runs on torch, both models have the same memory: training one changes the other. The parameters may be
    transposed views of it. With JAX and TensorFlow, each weight is copied once. LoRA is merged into the kernels, which
    are new. What the result computes or has otherwise is in a warning.

    Args:
        keras_model: An `AlbertBackbone` of keras_hub or of this package, or a task of keras_hub.
        layout: `transformers` for a class of transformers, or `albert_hub` for a class of this package, which computes
            exactly what KerasHub computes.
        preprocessor: A preprocessor or tokenizer of keras_hub, for a backbone. That of the task by default.
        normalize: As in `convert`.
        dtype: Of the parameters; that of the variables by default.
        labels: Names of a classifier's labels, as in `convert`. A model of KerasHub has none.
        drop_head: Whether to leave out a head that is neither a text classifier nor a masked LM.
        drop_unknown: The paths of weights that no ALBERT has, to leave out instead of raising an error.

    Returns:
        The model, in inference mode, and the tokenizer; None without a preprocessor. The tokenizer is made from
        temporary files.

    Raises:
        SourceError: It is another model, or does not support the options.
        CheckpointError: It cannot be converted; all problems are listed, as by `convert`.
        ValueError: An option has an unsupported value.
    """
    layout = choose("layout", layout, tuple(SPELLINGS))
    options = ConvertOptions(
        layout, normalize, _float(dtype), drop_head=drop_head, drop_unknown=drop_unknown, labels=labels
    )
    own = _own_backbone(keras_model, preprocessor=preprocessor, drop_unknown=drop_unknown)
    checkpoint = own or live_keras.read_keras_model(keras_model, options.reading, preprocessor)
    converted = adapt(checkpoint, options, str(checkpoint.folder))
    is_shared = own is not None or live_keras.shares_tensors()
    to_torch = live_transformers.shared if is_shared else live_transformers.copied
    model = live_transformers.make_transformers_model(converted, layout, to_torch)
    tokenizer = live_transformers.make_transformers_tokenizer(converted, layout)
    _warn(notes_in_memory(checkpoint, converted, layout))
    return model, tokenizer


def to_keras(
    model: Any,
    tokenizer: Any = None,
    *,
    normalize: Normalize = "keep",
    dtype: ComputeDtype | torch.dtype | None = None,
    drop_head: bool = False,
    drop_tokenizer: bool = False,
    drop_unknown: Sequence[str] = (),
    allow_approximate_gelu: bool = False,
) -> Any:
    """Convert a live model of transformers, or of this package, into one of KerasHub. No files are written for weights.

    Where Keras runs on torch, both models have the same memory if it is on the same device: training one changes the
    other. With JAX and TensorFlow, each weight is copied once. What the result computes or has otherwise is in a
    warning.

    Args:
        model: An ALBERT of transformers, or a model of this package.
        tokenizer: Its tokenizer, for the preprocessor of a task. A backbone has none: see `to_keras_preprocessor`.
        normalize: As in `convert`.
        dtype: Of the variables; that of the parameters by default.
        drop_head: Whether to leave out a head that KerasHub does not have, instead of raising an error.
        drop_tokenizer: Whether to leave out what of the tokenizer is no SentencePiece vocabulary, instead of raising an
            error.
        drop_unknown: The names of tensors that no ALBERT has, to leave out instead of raising an error.
        allow_approximate_gelu: Whether KerasHub may compute `gelu` by its tanh approximation.

    Returns:
        An `AlbertTextClassifier` or `AlbertMaskedLM` if the model has such a head, otherwise an `AlbertBackbone`.

    Raises:
        SourceError: It is another model, or does not support the options.
        CheckpointError: It cannot be converted; all problems are listed, as by `convert`.
        ImportError: keras-hub is not installed.
        ValueError: An option has an unsupported value.
    """
    options = ConvertOptions(
        "keras",
        normalize,
        _float(dtype),
        drop_head=drop_head,
        drop_tokenizer=drop_tokenizer,
        drop_unknown=drop_unknown,
        allow_approximate_gelu=allow_approximate_gelu,
    )
    own = _own_backbone(model, tokenizer=tokenizer, drop_unknown=drop_unknown)
    checkpoint = own or live_transformers.read_transformers_model(model, tokenizer, options.reading)
    converted = adapt(checkpoint, options, str(checkpoint.folder))
    result = live_keras.make_keras_model(converted)
    notes = notes_in_memory(checkpoint, converted, "keras")
    if converted.head is None and tokenizer is not None:
        notes.append("A backbone of KerasHub has no preprocessor: to_keras_preprocessor(model, tokenizer) makes it.")
    _warn(notes)
    return result


def _float(dtype: ComputeDtype | torch.dtype | None) -> ComputeDtype | None:
    """Return the name of a dtype of floats. A live model has no int8 weights that could be kept."""
    return choose("dtype", dtype_name(dtype), (None, *get_args(ComputeDtype)), DTYPE_NAMES)


def to_keras_preprocessor(model: Any, tokenizer: Any, *, normalize: Normalize = "keep") -> Any:
    """Convert a live tokenizer of transformers into a preprocessor of KerasHub, which packs inputs for a backbone.

    Args:
        model: The model of the tokenizer, which limits the number of tokens.
        tokenizer: The tokenizer.
        normalize: As in `convert`.

    Returns:
        An `AlbertTextClassifierPreprocessor`, with an `AlbertTokenizer`; for a masked LM, its preprocessor.

    Raises:
        SourceError, CheckpointError, ImportError, ValueError: As `to_keras`.
    """
    options = ConvertOptions("keras", normalize, drop_head=True)
    checkpoint = live_transformers.read_transformers_model(model, tokenizer, options.reading)
    converted = adapt(checkpoint, options, str(checkpoint.folder))
    return live_keras.make_keras_preprocessor(converted)


def export_to_transformers(
    keras_model: Any, path: str | Path, *, preprocessor: Any = None, overwrite: bool = False
) -> None:
    """Write a live model of KerasHub as the repository that `convert` writes of its preset, without records.

    Args:
        keras_model: An `AlbertBackbone` of keras_hub, or a task with one.
        path: The folder to create, with its parents.
        preprocessor: A preprocessor or tokenizer of keras_hub, for a backbone. That of the task by default.
        overwrite: Whether to replace an existing preset or repository as a whole.

    Raises:
        SourceError, CheckpointError: It cannot be converted.
        TargetError: The folder exists and is not empty, or cannot be written.
    """
    folder = Path(os.path.abspath(os.path.expanduser(path)))
    checkpoint = live_keras.read_keras_model(keras_model, preprocessor=preprocessor)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(folder, overwrite, is_written_file) as staging:
        write_checkpoint(checkpoint, staging, "transformers")
    _warn(notes_in_memory(checkpoint, checkpoint, "transformers"))


def _own_backbone(model: Any, **of_others: Any) -> Checkpoint | None:
    """Return the weights of an `AlbertBackbone` of this package; None for other models.

    Raises:
        SourceError: An argument is given that only other models take.
    """
    if not isinstance(model, AlbertBackbone):
        return None
    if given := [name for name, value in of_others.items() if value]:
        raise SourceError(
            f"An AlbertBackbone of this package is weights alone, so it takes no {' and no '.join(given)}. Convert its "
            "preset or repository instead."
        )
    return as_checkpoint(model.model, model.architecture, Path("<AlbertBackbone>"))


def _warn(notes: Sequence[str]) -> None:
    """Warn the caller of a public function of what its result computes or has otherwise."""
    if notes:
        warnings.warn("\n".join(notes), stacklevel=3)
