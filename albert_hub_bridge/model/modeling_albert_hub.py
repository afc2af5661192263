"""ALBERT as KerasHub computes it, as a transformers model. Read from top to bottom: the order of the forward pass.

What differs from transformers' own `AlbertModel`, each a fact of `keras_hub/src/models/albert/albert_backbone.py` and
`keras_hub/src/layers/modeling/transformer_encoder.py`:

- GELU is the tanh approximation, fused.
- One dropout rate, also applied after the feed-forward block.
- The softmax of attention runs in float32 under every dtype; probabilities of masked keys are zeroed after it, so a
  sequence that is all padding attends to nothing instead of to everything.
- New weights are drawn from a truncated normal, and the row of `<pad>` is trained like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_albert_hub import AlbertHubConfig


if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor
    from transformers.processing_utils import Unpack
    from transformers.utils import TransformersKwargs

LAYER_NORM_EPSILON = 1e-12


def eager_attention_forward(
    module: nn.Module,
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch heads keys head_dim"],
    value: Float[Tensor, "batch heads keys head_dim"],
    attention_mask: Float[Tensor, "batch 1 queries keys"] | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Float[Tensor, "batch queries heads head_dim"], Float[Tensor, "batch heads queries keys"]]:
    """Attention written out, the only backend that returns its probabilities."""
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    precision = torch.promote_types(query.dtype, torch.float32)  # float32 under bfloat16 and float16
    probabilities = nn.functional.softmax(scores, dim=-1, dtype=precision).to(query.dtype)
    if attention_mask is not None:
        # Where every key is masked the softmax is uniform; KerasHub (and sdpa) give zeros there.
        hidden_keys = attention_mask == torch.finfo(attention_mask.dtype).min
        probabilities = probabilities.masked_fill(hidden_keys, 0.0)
    probabilities = nn.functional.dropout(probabilities, p=dropout, training=module.training)
    return torch.matmul(probabilities, value).transpose(1, 2).contiguous(), probabilities


class AlbertHubAttention(nn.Module):
    """Multi-head self-attention: `_self_attention_layer` of KerasHub's `TransformerEncoder`."""

    is_causal = False

    def __init__(self, config: AlbertHubConfig) -> None:
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_dim // config.num_heads
        self.scaling = self.head_dim**-0.5
        self.query_dense = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.key_dense = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.value_dense = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.output_dense = nn.Linear(config.hidden_dim, config.hidden_dim)

    def forward(
        self,
        hidden_states: Float[Tensor, "batch seq hidden"],
        attention_mask: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[Float[Tensor, "batch seq hidden"], Float[Tensor, "batch heads seq seq"] | None]:
        """Return the attended states and, from the eager backend, the probabilities."""
        heads = (*hidden_states.shape[:-1], -1, self.head_dim)
        query = self.query_dense(hidden_states).view(heads).transpose(1, 2)
        key = self.key_dense(hidden_states).view(heads).transpose(1, 2)
        value = self.value_dense(hidden_states).view(heads).transpose(1, 2)

        attend: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attended, probabilities = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.config.dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.output_dense(attended.reshape(*hidden_states.shape[:-1], -1)), probabilities


class AlbertHubLayer(GradientCheckpointingLayer):
    """One encoder layer, post-norm: KerasHub's `TransformerEncoder`."""

    def __init__(self, config: AlbertHubConfig) -> None:
        super().__init__()
        self.self_attention_layer = AlbertHubAttention(config)
        self.self_attention_layer_norm = nn.LayerNorm(config.hidden_dim, eps=LAYER_NORM_EPSILON)
        self.feedforward_intermediate_dense = nn.Linear(config.hidden_dim, config.intermediate_dim)
        self.feedforward_output_dense = nn.Linear(config.intermediate_dim, config.hidden_dim)
        self.feedforward_layer_norm = nn.LayerNorm(config.hidden_dim, eps=LAYER_NORM_EPSILON)
        self.self_attention_dropout = nn.Dropout(config.dropout)
        self.feedforward_dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        hidden_states: Float[Tensor, "batch seq hidden"],
        attention_mask: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Float[Tensor, "batch seq hidden"]:
        """Attend, then feed forward; each block ends in dropout, residual and layer norm."""
        attended, _ = self.self_attention_layer(hidden_states, attention_mask, **kwargs)
        attended = self.self_attention_dropout(attended)
        hidden_states = self.self_attention_layer_norm(hidden_states + attended)

        intermediate = self.feedforward_intermediate_dense(hidden_states)
        intermediate = nn.functional.gelu(intermediate, approximate="tanh")
        output = self.feedforward_dropout(self.feedforward_output_dense(intermediate))
        return self.feedforward_layer_norm(hidden_states + output)


class AlbertHubPreTrainedModel(PreTrainedModel):
    """What all ALBERT models of this package share: how they are loaded, initialized and run."""

    config_class = AlbertHubConfig
    base_model_prefix = "backbone"
    supports_gradient_checkpointing = True
    _no_split_modules = ["AlbertHubLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": AlbertHubLayer, "attentions": AlbertHubAttention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialize as KerasHub does: `TruncatedNormal(0.02)`, cut at two standard deviations, and zero biases."""
        if isinstance(module, nn.Linear | nn.Embedding):
            std = self.config.initializer_range
            init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            init.zeros_(module.bias)
        if isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)


class AlbertHubModel(AlbertHubPreTrainedModel):
    """The ALBERT encoder of KerasHub, with transformers' interface.

    Args:
        config: The architecture.
        add_pooling_layer: Whether to have `pooled_dense`; heads that work on tokens do without.

    Source:
        Lan et al., 2019, https://arxiv.org/abs/1909.11942; keras_hub/src/models/albert/albert_backbone.py.
    """

    def __init__(self, config: AlbertHubConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.token_embedding: nn.Module = nn.Embedding(config.vocabulary_size, config.embedding_dim)
        self.position_embedding = nn.Embedding(config.max_sequence_length, config.embedding_dim)
        self.segment_embedding = nn.Embedding(config.num_segments, config.embedding_dim)
        self.embeddings_layer_norm = nn.LayerNorm(config.embedding_dim, eps=LAYER_NORM_EPSILON)
        self.embeddings_dropout = nn.Dropout(config.dropout)
        self.embeddings_projection = nn.Linear(config.embedding_dim, config.hidden_dim)
        self.transformer_layers: Any = nn.ModuleList(
            nn.ModuleList(AlbertHubLayer(config) for _ in range(config.num_inner_repetitions))
            for _ in range(config.num_groups)
        )
        self.pooled_dense = nn.Linear(config.hidden_dim, config.hidden_dim) if add_pooling_layer else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding, (vocabulary_size, embedding_dim)."""
        return self.token_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding."""
        self.token_embedding = value

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Int[Tensor, "batch seq"] | None = None,
        attention_mask: Int[Tensor, "batch seq"] | None = None,
        token_type_ids: Int[Tensor, "batch seq"] | None = None,
        position_ids: Int[Tensor, "batch seq"] | None = None,
        inputs_embeds: Float[Tensor, "batch seq embedding"] | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """Encode a batch.

        Args:
            input_ids: Token ids, in [0, vocabulary_size). KerasHub's `token_ids`.
            attention_mask: 1 for tokens, 0 for padding; all ones by default. KerasHub's `padding_mask`.
            token_type_ids: Segment ids, in [0, num_segments); all zeros by default. KerasHub's `segment_ids`.
            position_ids: Positions, in [0, max_sequence_length); 0, 1, 2, ... by default.
            inputs_embeds: Token embeddings, of width embedding_dim, instead of `input_ids`.
            **kwargs: `output_hidden_states`, `output_attentions`, `return_dict`, and what attention backends take.

        Returns:
            `last_hidden_state` (batch, seq, hidden_dim), KerasHub's `sequence_output`, and `pooler_output`
            (batch, hidden_dim), KerasHub's `pooled_output`, or None without a pooling layer.

        Raises:
            ValueError: Both or neither of `input_ids` and `inputs_embeds` were given, or the sequence is too long.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Pass exactly one of input_ids and inputs_embeds.")
        if inputs_embeds is None:
            inputs_embeds = self.token_embedding(input_ids)
        batch_shape, device = inputs_embeds.shape[:2], inputs_embeds.device
        if position_ids is None:
            if batch_shape[1] > self.config.max_sequence_length:
                raise ValueError(
                    f"A sequence of {batch_shape[1]} tokens is longer than max_sequence_length="
                    f"{self.config.max_sequence_length}; truncate the texts."
                )
            position_ids = torch.arange(batch_shape[1], device=device).unsqueeze(0)
        if token_type_ids is None:
            token_type_ids = torch.zeros((1, 1), dtype=torch.long, device=device).expand(batch_shape)

        embeddings = inputs_embeds + self.position_embedding(position_ids) + self.segment_embedding(token_type_ids)
        embeddings = self.embeddings_dropout(self.embeddings_layer_norm(embeddings))
        hidden_states = self.embeddings_projection(embeddings)

        mask: Any = create_bidirectional_mask(
            config=self.config, inputs_embeds=hidden_states, attention_mask=attention_mask
        )
        for group in self.transformer_layers:
            for _ in range(self.config.num_layers // self.config.num_groups):
                for layer in group:
                    hidden_states = layer(hidden_states, mask, **kwargs)

        pooled = torch.tanh(self.pooled_dense(hidden_states[:, 0])) if self.pooled_dense is not None else None
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=pooled)


__all__ = ["AlbertHubModel", "AlbertHubPreTrainedModel"]
