"""What a model of Keras has: layers with names, a dtype policy, `predict`, `summary` and `trainable`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from albert_hub_bridge.formats.lazy_tensors import dtype_name
from albert_hub_bridge.formats.torch_tensors import as_array
from albert_hub_bridge.model.architecture import KERAS_FIELDS, Architecture
from albert_hub_bridge.model.modeling_albert_hub import AlbertHubModel
from albert_hub_bridge.runtime.dtype_policy import DTypePolicy, policy_of
from albert_hub_bridge.runtime.elsewhere import missing_attribute
from albert_hub_bridge.runtime.keras_layers import (
    Dense,
    Dropout,
    Embedding,
    KerasLayer,
    LayerNormalization,
    PositionEmbedding,
    ReversibleEmbedding,
    TransformerEncoder,
    layers_of,
)
from albert_hub_bridge.runtime.summary import print_summary


if TYPE_CHECKING:
    from torch import Tensor


INPUTS = ("token_ids", "segment_ids", "padding_mask")


class KerasModel(nn.Module):
    """The interface of a Keras model, for the layers and outputs of an `AlbertHubModel`.

    Args:
        architecture: The architecture.
        name: The name of the model.
    """

    cls_token_index = 0
    model: AlbertHubModel

    def __init__(self, architecture: Architecture, name: str) -> None:
        super().__init__()
        self.architecture, self.name, self._trainable = architecture, name, True

    def __getattr__(self, name: str) -> Any:
        """Return a constructor argument as an attribute, such as `backbone.hidden_dim`."""
        if name in KERAS_FIELDS:
            return getattr(self.architecture, name)
        if (message := missing_attribute(name)) is not None:
            raise AttributeError(message)
        return super().__getattr__(name)

    @property
    def dtype_policy(self) -> DTypePolicy:
        """The dtype policy, with `name`, `compute_dtype` and `variable_dtype`."""
        return policy_of(self.model.embeddings_layer_norm, "weight")

    @property
    def dtype(self) -> str:
        """The dtype of the parameters."""
        return dtype_name(self.model.dtype)

    @property
    def variable_dtype(self) -> str:
        """The dtype of the parameters."""
        return self.dtype

    @property
    def compute_dtype(self) -> str:
        """The dtype of computations and outputs."""
        return self.dtype_policy.compute_dtype

    @property
    def trainable(self) -> bool:
        """Whether the parameters get gradients. Set it to freeze the backbone, or to train it."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)
        self.model.requires_grad_(self._trainable)

    @property
    def layers(self) -> list[KerasLayer]:
        """The layers, in the order of the forward pass."""
        return list(layers_of(self.model).values())

    def get_layer(self, name: str) -> KerasLayer:
        """Return a layer by its name in KerasHub, such as `"pooled_dense"`.

        Raises:
            ValueError: There is no such layer.
        """
        layers = layers_of(self.model)
        if name not in layers:
            raise ValueError(f"No layer is called {name!r}: expected one of {', '.join(layers)}.")
        return layers[name]

    def _layer(self, name: str) -> Any:
        return layers_of(self.model)[name]

    @property
    def token_embedding(self) -> ReversibleEmbedding:
        """The token embedding. Its weight is (vocabulary_size, embedding_dim).

        `token_embedding(states, reverse=True)` returns the scores of all tokens, as a masked-LM head needs them.
        """
        return self._layer("token_embedding")

    @property
    def position_embedding(self) -> PositionEmbedding:
        """The position embedding. Its weight is (max_sequence_length, embedding_dim)."""
        return self._layer("position_embedding")

    @property
    def segment_embedding(self) -> Embedding:
        """The segment embedding. Its weight is (num_segments, embedding_dim)."""
        return self._layer("segment_embedding")

    @property
    def embeddings_layer_norm(self) -> LayerNormalization:
        """The layer norm of the embeddings."""
        return self._layer("embeddings_layer_norm")

    @property
    def embeddings_dropout(self) -> Dropout:
        """The dropout of the embeddings."""
        return self._layer("embeddings_dropout")

    @property
    def embeddings_projection(self) -> Dense:
        """The projection of the embeddings to hidden_dim. In KerasHub, the layer is called `embedding_projection`."""
        return self._layer("embedding_projection")

    @property
    def transformer_layers(self) -> list[list[TransformerEncoder]]:
        """The layers of each group: `num_groups` lists of `num_inner_repetitions` layers."""
        groups, inner_layers = range(self.architecture.num_groups), range(self.architecture.num_inner_repetitions)
        return [[self._layer(f"group_{group}_inner_layer_{inner}") for inner in inner_layers] for group in groups]

    @property
    def pooled_dense(self) -> Dense:
        """The pooler, with its tanh."""
        return self._layer("pooled_dense")

    def count_params(self) -> int:
        """Return the number of parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def predict(
        self, x: Mapping[str, np.ndarray | Tensor], batch_size: int | None = None, verbose: Any = "auto"
    ) -> dict[str, np.ndarray]:
        """Compute the outputs for any number of rows, in batches, without gradients and without dropout.

        Args:
            x: The inputs, as in a call.
            batch_size: The largest number of rows in a batch. 32 by default.
            verbose: Not used: nothing is printed.

        Returns:
            The outputs as NumPy arrays, in the compute dtype. bfloat16 is that of ml_dtypes, as in Keras.

        Raises:
            ValueError: An input is missing or unknown, the inputs have different numbers of rows or no rows, or the
                batch size is not positive.
        """
        inputs = {name: torch.as_tensor(value) for name, value in checked_inputs(x).items()}
        rows = {name: len(value) if value.ndim else 0 for name, value in inputs.items()}
        if len(set(rows.values())) > 1 or not min(rows.values()):
            found = ", ".join(f"{name} {count}" for name, count in rows.items())
            raise ValueError(f"expected inputs with the same number of rows, at least one, found {found}.")
        size = 32 if batch_size is None else batch_size
        if size < 1:
            raise ValueError(f"batch_size must be a positive integer, not {batch_size!r}.")
        with torch.no_grad():
            batches = [
                self({name: value[first : first + size] for name, value in inputs.items()}, training=False)
                for first in range(0, rows["token_ids"], size)
            ]
        return {name: as_array(torch.cat([batch[name] for batch in batches])) for name in batches[0]}

    def summary(
        self,
        line_length: int | None = None,
        *,
        print_fn: Callable[[str], object] | None = None,
        show_trainable: bool = False,
    ) -> None:
        """Print the layers and the numbers of parameters.

        Args:
            line_length: The width, in characters. That of the terminal by default.
            print_fn: Called with the text, instead of printing it.
            show_trainable: Whether to show which layers are trained.
        """
        print_summary(self.name, self.layers, line_length=line_length, print_fn=print_fn, show_trainable=show_trainable)


def checked_inputs(inputs: Any) -> Mapping[str, Any]:
    """Return the inputs of a call in KerasHub's order.

    Raises:
        ValueError: An input is missing or unknown.
    """
    names = set(inputs) if isinstance(inputs, Mapping) else set()
    if names != set(INPUTS):
        raise ValueError(f"expected the inputs {', '.join(INPUTS)}, found {', '.join(sorted(names)) or 'none'}.")
    return {name: inputs[name] for name in INPUTS}


def absolute_path(path: str | Path, suffix: str = "") -> Path:
    """Return the absolute path of a file or folder.

    Raises:
        ValueError: The name does not end in the suffix, which Keras requires.
    """
    if not str(path).endswith(suffix):
        raise ValueError(f"The name of the file must end in {suffix}, as in Keras, not {str(path)!r}.")
    return Path(os.path.abspath(os.path.expanduser(path)))
