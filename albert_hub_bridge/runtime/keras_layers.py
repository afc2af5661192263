"""The layers of a backbone, called as in KerasHub: `backbone.pooled_dense(x)` computes what it computes there.

They are views: they have no parameters of their own, and are made when they are asked for.

Source:
    keras_hub/src/models/albert/albert_backbone.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from albert_hub_bridge.model.modeling_albert_hub import AlbertHubLayer, AlbertHubModel


if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


class KerasLayer(nn.Module):
    """A layer of the backbone. Its other attributes, such as `weight` and `bias`, are those of the module of torch.

    Args:
        layer: The module of `AlbertHubModel`.
        name: The name of the layer in KerasHub.
        output_shape: The shape of its output, with None for sizes that may vary.
    """

    def __init__(self, layer: Any, name: str, output_shape: tuple[int | None, ...]) -> None:
        super().__init__()
        self.layer, self.name, self.output_shape = layer, name, output_shape

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the module of torch."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "layer":
                raise
            return getattr(self.layer, name)

    @property
    def trainable(self) -> bool:
        """Whether a parameter gets gradients. Set it to freeze the layer, or to train it."""
        parameters = list(self.parameters())
        return not parameters or any(parameter.requires_grad for parameter in parameters)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self.layer.requires_grad_(value)

    def count_params(self) -> int:
        """Return the number of parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, inputs: Any) -> Tensor:
        """Apply the layer to an array or tensor."""
        return self.layer(self._as_input(inputs))

    def _as_input(self, inputs: Any) -> Tensor:
        """Return ids as torch needs them, and other inputs in the dtype in which the layer computes."""
        like = next(self.parameters(), None)
        inputs = torch.as_tensor(inputs, device=None if like is None else like.device)
        if not inputs.is_floating_point():
            return inputs.long()
        return inputs if like is None else inputs.to(self.weight.dtype)


class Embedding(KerasLayer):
    """Keras' `Embedding`."""


class LayerNormalization(KerasLayer):
    """Keras' `LayerNormalization`."""


class Dropout(KerasLayer):
    """Keras' `Dropout`."""


class Dense(KerasLayer):
    """Keras' `Dense`. Unlike there, `weight` is (outputs, inputs).

    Args:
        layer: The layer.
        name: The name of the layer in KerasHub.
        output_shape: The shape of its output.
        activation: A function that is applied to the output.
    """

    def __init__(
        self,
        layer: Any,
        name: str,
        output_shape: tuple[int | None, ...],
        activation: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(layer, name, output_shape)
        self.activation = activation

    def forward(self, inputs: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Apply the layer and its activation."""
        outputs = super().forward(inputs)
        return outputs if self.activation is None else self.activation(outputs)


class ReversibleEmbedding(Embedding):
    """Keras' `ReversibleEmbedding`, which also projects states back to scores of tokens."""

    def forward(self, inputs: Int[Tensor, "*batch"] | Float[Tensor, "*batch embedding"], reverse: bool = False) -> Any:
        """Return the embeddings of token ids; with `reverse`, the scores of all tokens, (*batch, vocabulary_size)."""
        if not reverse:
            return super().forward(inputs)
        states = torch.as_tensor(inputs, device=self.weight.device)
        dtype = torch.promote_types(states.dtype, self.weight.dtype)  # Keras does not round the states here
        return states.to(dtype) @ self.weight.to(dtype).T


class PositionEmbedding(KerasLayer):
    """KerasHub's `PositionEmbedding`."""

    def forward(
        self,
        inputs: Float[Tensor, "*batch seq embedding"],
        start_index: int = 0,
        positions: Int[Tensor, "*batch seq"] | None = None,
    ) -> Float[Tensor, "*batch seq embedding"]:
        """Return the embeddings of positions, in the shape of the inputs. The values of the inputs are not used.

        Args:
            inputs: Embeddings of tokens.
            start_index: The first position.
            positions: The positions, where they are not those that follow `start_index`.
        """
        shape = torch.as_tensor(inputs).shape
        if positions is None:
            positions = torch.arange(start_index, start_index + shape[-2], device=self.weight.device)
        return super().forward(positions).expand(shape)


class TransformerEncoder(KerasLayer):
    """KerasHub's `TransformerEncoder`: a layer of a group.

    Args:
        layer: The layer.
        name: The name of the layer in KerasHub.
        output_shape: The shape of its output.
        model: The model that the layer belongs to. It knows the attention backend.
    """

    layer: AlbertHubLayer

    def __init__(
        self, layer: AlbertHubLayer, name: str, output_shape: tuple[int | None, ...], model: AlbertHubModel
    ) -> None:
        super().__init__(layer, name, output_shape)
        self._backend_mask = model._whole_attention_mask

    def forward(
        self,
        inputs: Float[Tensor, "batch seq hidden"],
        padding_mask: Int[Tensor, "batch seq"] | None = None,
        attention_mask: Int[Tensor, "batch seq seq"] | None = None,
    ) -> Float[Tensor, "batch seq hidden"]:
        """Apply the layer.

        Args:
            inputs: The states.
            padding_mask: 1 for tokens, 0 for padding.
            attention_mask: 1 where a query, in the second dimension, attends to a key.
        """
        states = self._as_input(inputs)
        mask = self._mask(states, padding_mask, attention_mask)
        return self.layer(states, None if mask is None else self._backend_mask(states, mask))

    @staticmethod
    def _mask(states: Tensor, padding: Any, attention: Any) -> Bool[Tensor, "batch 1 seq seq"] | None:
        if padding is None and attention is None:
            return None
        batch, length, _ = states.shape
        mask = torch.ones((batch, 1, length, length), dtype=torch.bool, device=states.device)
        if padding is not None:
            mask = mask & torch.as_tensor(padding, device=states.device).bool()[:, None, None, :]
        if attention is not None:
            mask = mask & torch.as_tensor(attention, device=states.device).bool()[:, None]
        return mask

    def _as_input(self, inputs: Any) -> Tensor:
        weight = self.layer.self_attention_layer_norm.weight
        return torch.as_tensor(inputs, device=weight.device).to(weight.dtype)


def layers_of(model: AlbertHubModel) -> dict[str, KerasLayer]:
    """Return the layers of a model by their names in KerasHub, in the order of the forward pass."""
    embedding = (None, None, model.config.embedding_dim)
    hidden = (None, None, model.config.hidden_dim)
    layers = [
        ReversibleEmbedding(model.token_embedding, "token_embedding", embedding),
        PositionEmbedding(model.position_embedding, "position_embedding", embedding),
        Embedding(model.segment_embedding, "segment_embedding", embedding),
        LayerNormalization(model.embeddings_layer_norm, "embeddings_layer_norm", embedding),
        Dropout(model.embeddings_dropout, "embeddings_dropout", embedding),
        Dense(model.embeddings_projection, "embedding_projection", hidden),
        *(
            TransformerEncoder(layer, f"group_{group}_inner_layer_{inner}", hidden, model)
            for group, inner_layers in enumerate(model.transformer_layers)
            for inner, layer in enumerate(inner_layers)
        ),
        Dense(model.pooled_dense, "pooled_dense", (None, model.config.hidden_dim), torch.tanh),
    ]
    return {layer.name: layer for layer in layers}
