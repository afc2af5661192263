"""KerasHub's ALBERT as a transformers model. The modules stand in the order of the forward pass.

Differences from transformers' own `AlbertModel`. Sources: `keras_hub/src/models/albert/albert_backbone.py` and
`keras_hub/src/layers/modeling/transformer_encoder.py`.

- GELU is the tanh approximation, fused, unless the configuration names another activation.
- There is one dropout rate. It also applies after the feed-forward block.
- The softmax of attention runs in float32 under every dtype. The probabilities of masked keys are set to zero after
  it. So a sequence that is all padding attends to nothing.
- New weights come from a truncated normal distribution. The row of `<pad>` is trained like any other row.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, TypeGuard

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask, packed_sequence_mask_function
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    MaskedLMOutput,
    ModelOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, logging
from transformers.utils.generic import can_return_tuple, is_flash_attention_requested, merge_with_config_defaults
from transformers.utils.import_utils import is_tracing
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_albert_hub import AlbertHubConfig
from .fast_linear import fast_linear, feed_forward, takes_fast_path
from .int8 import KerasInt8Quantizer  # noqa: F401 (its module registers int8 layers in transformers)
from .packed_sequences import SDPA_OPTIONS, PackedRow, has_flash_attention
from .packed_weights import pack


if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn.attention.flex_attention import BlockMask

    try:  # transformers requires all imports of remote code to be installed, except those inside a `try`
        from jaxtyping import Bool, Float, Int
    except ImportError:
        raise


logger = logging.get_logger(__name__)


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
    """Attention in plain PyTorch operations. Only this backend returns the probabilities."""
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    precision = torch.promote_types(query.dtype, torch.float32)  # float32 under bfloat16 and float16
    probabilities = nn.functional.softmax(scores, dim=-1, dtype=precision).to(query.dtype)
    if attention_mask is not None:
        # If every key is masked, the softmax is uniform. KerasHub and sdpa give zeros.
        hidden_keys = attention_mask <= torch.finfo(attention_mask.dtype).min  # or minus infinity
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
        self.dropout = config.dropout if config.attention_dropout is None else config.attention_dropout
        self.query_dense = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.key_dense = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.value_dense = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.output_dense = nn.Linear(config.hidden_dim, config.hidden_dim)

    def forward(
        self,
        hidden_states: Float[Tensor, "batch seq hidden"],
        attention_mask: Tensor | None = None,
        query_states: Float[Tensor, "batch queries hidden"] | None = None,
        row: PackedRow | None = None,
        checked: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[Float[Tensor, "batch queries hidden"], Float[Tensor, "batch heads queries seq"] | None]:
        """Return the attention output. The eager backend also returns the probabilities.

        Args:
            hidden_states: States for keys and values.
            attention_mask: Mask in the form of the attention backend.
            query_states: States for queries. `hidden_states` by default.
            row: How a packed batch of one row is packed. Each sequence attends to itself. A sequence has one query, or
                as many as tokens.
            checked: As in `fast_linear`, for all linear layers.
            **kwargs: Options of the attention backend.
        """
        query_states = hidden_states if query_states is None else query_states
        query, key, value = (
            fast_linear(projection, states, checked=checked).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection, states in (
                (self.query_dense, query_states),
                (self.key_dense, hidden_states),
                (self.value_dense, hidden_states),
            )
        )
        attend: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        kwargs.update(dropout=self.dropout if self.training else 0.0, scaling=self.scaling)  # type: ignore[call-arg]
        if row is None:
            attended, probabilities = attend(self, query, key, value, attention_mask, **kwargs)
        else:
            attended, probabilities = row.attend(attend, self, query, key, value, **kwargs), None
        return fast_linear(self.output_dense, attended.flatten(-2), checked=checked), probabilities


class AlbertHubLayer(GradientCheckpointingLayer):
    """One encoder layer, post-norm: KerasHub's `TransformerEncoder`."""

    def __init__(self, config: AlbertHubConfig) -> None:
        super().__init__()
        self.self_attention_layer = AlbertHubAttention(config)
        self.self_attention_layer_norm = nn.LayerNorm(config.hidden_dim, eps=config.layer_norm_epsilon)
        self.feedforward_intermediate_dense = nn.Linear(config.hidden_dim, config.intermediate_dim)
        self.activation = ACT2FN[config.activation]
        self.feedforward_output_dense = nn.Linear(config.intermediate_dim, config.hidden_dim)
        self.feedforward_layer_norm = nn.LayerNorm(config.hidden_dim, eps=config.layer_norm_epsilon)
        self.self_attention_dropout = nn.Dropout(config.dropout)
        self.feedforward_dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        hidden_states: Float[Tensor, "batch seq hidden"],
        attention_mask: Tensor | None = None,
        query_positions: slice | Int[Tensor, " queries"] | None = None,
        checked: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Float[Tensor, "batch queries hidden"]:
        """Apply attention, then the feed-forward block. Each ends with dropout, residual and layer norm.

        `query_positions` are the positions to compute. All by default. `checked` is as in `fast_linear`, for all linear
        layers.
        """
        states = hidden_states if query_positions is None else hidden_states[:, query_positions]
        attended, _ = self.self_attention_layer(hidden_states, attention_mask, states, checked=checked, **kwargs)
        states = self.self_attention_layer_norm(states + self.self_attention_dropout(attended))

        output = feed_forward(
            self.feedforward_intermediate_dense, self.activation, self.feedforward_output_dense, states, checked
        )
        return self.feedforward_layer_norm(states + self.feedforward_dropout(output))

    def linear_layers(self) -> list[nn.Module]:
        """Return the linear layers, in the order of the forward pass."""
        attention = self.self_attention_layer
        projections = [attention.query_dense, attention.key_dense, attention.value_dense, attention.output_dense]
        return [*projections, self.feedforward_intermediate_dense, self.feedforward_output_dense]


class AlbertHubPreTrainedModel(PreTrainedModel):
    """Base class of all ALBERT models of this package: loading and initialization."""

    config_class = AlbertHubConfig
    base_model_prefix = "backbone"
    supports_gradient_checkpointing = True
    _no_split_modules = ["AlbertHubLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {
        "hidden_states": OutputRecorder(AlbertHubLayer, num_hidden_layers_key="num_layer_runs"),
        "attentions": AlbertHubAttention,
    }

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "forward" in vars(cls):
            # Annotations are strings in this file. transformers' tools need this one evaluated.
            inspect.unwrap(cls.forward).__annotations__["kwargs"] = Unpack[TransformersKwargs]

    def get_position_embeddings(self) -> nn.Embedding:
        """Return the position embedding, (max_sequence_length, embedding_dim)."""
        base: Any = self.base_model
        return base.position_embedding

    def resize_position_embeddings(self, new_num_position_embeddings: int) -> None:
        """Change the number of positions. Rows at the end are removed, or initialized like new weights."""
        old = self.get_position_embeddings()
        new = nn.Embedding(new_num_position_embeddings, old.embedding_dim).to(old.weight)
        self._init_weights(new)
        kept = min(new.num_embeddings, old.num_embeddings)
        new.weight.data[:kept] = old.weight.data[:kept]
        new.weight.requires_grad_(old.weight.requires_grad)
        self.base_model.position_embedding = new
        self.config.max_sequence_length = new_num_position_embeddings

    @classmethod
    def from_preset(cls, preset: Any, dtype: str | torch.dtype = "float32", allow_pickle: bool = False) -> Any:
        """Load a KerasHub preset, or a repository of any layout. See `albert_hub_bridge.runtime.loading`.

        Args:
            preset: A folder, the name of a published preset, or a handle (`kaggle://...`, `hf://...`).
            dtype: `"float32"`, `"bfloat16"` or `"float16"`, or that of torch. `"int8"` keeps int8 weights.
            allow_pickle: Whether to read weights from a pickle. Only tensors are unpickled.

        Raises:
            ImportError: albert-hub-bridge is not installed.
        """
        return _loading("from_preset").load_preset(cls, preset, dtype, allow_pickle)

    @classmethod
    def from_keras(cls, keras_model: Any) -> Any:
        """Load a live model of KerasHub. See `albert_hub_bridge.runtime.loading`.

        Where Keras runs on torch, the two models share memory: training one changes the other.

        Args:
            keras_model: An `AlbertBackbone` of keras_hub, or a task with one. `AlbertHubModel` takes any task, and the
                other classes the task with their head.

        Raises:
            ImportError: albert-hub-bridge is not installed.
        """
        return _loading("from_keras").load_keras_model(cls, keras_model)

    def optimize_for_inference(self) -> Self:
        """Pack the weights of the encoder's linear layers, for inference on a CPU. The results stay, up to rounding.

        oneDNN copies a weight into an order of its own in every call. Here it is copied once. This usually matters most
        for small batches. The copies take as much memory as the weights. `state_dict` does not have them.

        If a weight changes later, its copy is no longer used, except if torch does not count the change: one through
        `Tensor.data`, or through memory that a NumPy array or a Keras model shares. Call this method again after those.
        torch.compile does not use the copies.

        Returns:
            This model. It is unchanged if oneDNN does not compute its layers here, for example on a GPU. A warning
            says so.
        """
        linears = [module for module in self.base_model.modules() if isinstance(module, nn.Linear)]
        with torch.no_grad():
            packable = [
                linear
                for linear in linears
                if not linear.weight.is_inference() and takes_fast_path(linear.weight.detach(), [linear])
            ]
        for linear in packable:
            pack(linear)
        if not packable:
            logger.warning("optimize_for_inference changes nothing here: oneDNN does not compute the linear layers.")
        return self

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialize like KerasHub: `TruncatedNormal(0.02)`, truncated at two standard deviations, and zero biases."""
        if isinstance(module, nn.Linear | nn.Embedding):
            std = self.config.initializer_range
            init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            init.zeros_(module.bias)
        if isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)


def _loading(method: str) -> Any:
    """Return the module that loads models, for a method. It is imported by name: this folder depends on no other.

    Raises:
        ImportError: The folder is in a repository, and the package is not installed.
    """
    try:
        return importlib.import_module("albert_hub_bridge.runtime.loading")
    except ImportError as error:
        raise ImportError(f"{method} needs the package albert-hub-bridge, which is not installed.") from error


def _has_options_of_sdpa(kwargs: dict[str, Any]) -> bool:
    """Return whether there are options that mean something else without a mask, or for one query."""
    options = [kwargs.get(option) for option in SDPA_OPTIONS]
    return not all(option is None or option is False for option in options)


def _is_padding_mask(attention_mask: Any) -> TypeGuard[Tensor]:
    return isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2


def _hides_nothing(attention_mask: Any) -> bool:
    """Return whether a mask is all ones. Such a mask need not be applied."""
    return _is_padding_mask(attention_mask) and not is_tracing(attention_mask) and bool(attention_mask.all())


class AlbertHubModel(AlbertHubPreTrainedModel):
    """The ALBERT encoder of KerasHub, with transformers' interface.

    Args:
        config: The architecture.
        add_pooling_layer: Whether to add `pooled_dense`. Token-level heads do not use it.

    Source:
        Lan et al., 2019, https://arxiv.org/abs/1909.11942; keras_hub/src/models/albert/albert_backbone.py.
    """

    def __init__(self, config: AlbertHubConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.token_embedding: nn.Module = nn.Embedding(config.vocabulary_size, config.embedding_dim)
        self.position_embedding = nn.Embedding(config.max_sequence_length, config.embedding_dim)
        self.segment_embedding = nn.Embedding(config.num_segments, config.embedding_dim)
        self.embeddings_layer_norm = nn.LayerNorm(config.embedding_dim, eps=config.layer_norm_epsilon)
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
        attention_mask: Int[Tensor, "batch seq"] | Tensor | BlockMask | None = None,
        token_type_ids: Int[Tensor, "batch seq"] | None = None,
        position_ids: Int[Tensor, "batch seq"] | None = None,
        inputs_embeds: Float[Tensor, "batch seq embedding"] | None = None,
        positions: Literal["all", "unmasked", "first"] = "all",
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """Encode a batch.

        Args:
            input_ids: Token ids, in [0, vocabulary_size). KerasHub's `token_ids`.
            attention_mask: 1 for tokens, 0 for padding. All ones by default. KerasHub's `padding_mask`. A mask of shape
                (batch, 1, seq, seq) is also accepted: booleans, or floats that are added to the scores. So is a
                `BlockMask`.
            token_type_ids: Segment ids, in [0, num_segments). All zeros by default. KerasHub's `segment_ids`.
            position_ids: Positions, in [0, max_sequence_length). 0, 1, 2, ... by default. Without `attention_mask`, a
                row may hold several packed sequences. Each begins at position 0, and attends to itself only.
            inputs_embeds: Token embeddings of width embedding_dim. They replace `input_ids`.
            positions: Positions of `last_hidden_state` to compute. `"unmasked"` gives zeros where `attention_mask` is
                0. `"first"` gives the first position alone, (batch, 1, hidden_dim). The returned values are those of
                `"all"`. With hooks on the layers, or sdpa's options `is_causal` and `position_bias`, the others are
                computed and left out. With `output_hidden_states` or `output_attentions`, all are returned.
            **kwargs: `output_hidden_states`, `output_attentions`, `return_dict`, and options of the attention backend.

        Returns:
            `last_hidden_state` (batch, seq, hidden_dim), KerasHub's `sequence_output`, and `pooler_output`
            (batch, hidden_dim), KerasHub's `pooled_output`, or None without a pooling layer.

        Raises:
            ValueError: Both or neither of `input_ids` and `inputs_embeds` were given, the sequence is too long, or
                the attention backend does not support this mask or packed positions.
        """
        if positions not in {"all", "unmasked", "first"}:
            raise ValueError(f'positions must be "all", "unmasked" or "first", not {positions!r}.')
        is_recorded = kwargs.get("output_hidden_states", self.config.output_hidden_states) or kwargs.get(
            "output_attentions", self.config.output_attentions
        )
        positions = "all" if is_recorded else positions
        embeddings = self._embed(input_ids, token_type_ids, position_ids, inputs_embeds)
        if attention_mask is None and position_ids is not None:
            packed_positions = position_ids.expand(embeddings.shape[:2])
            kwargs["position_ids"] = position_ids  # flash attention finds the packed sequences itself
        else:
            packed_positions = None
        attention_mask = None if _hides_nothing(attention_mask) else attention_mask

        may_pack = not is_recorded and not _has_options_of_sdpa(kwargs)
        row = self._packed_row(embeddings, attention_mask, packed_positions, positions) if may_pack else None
        mask = None
        if row is None:
            mask = self._attention_mask(embeddings, attention_mask, packed_positions)
        else:
            embeddings, kwargs["row"] = row.pack(embeddings), row
        if self._layers_take_fast_path(embeddings):
            kwargs["checked"] = True
        hidden_states = fast_linear(self.embeddings_projection, embeddings)
        repetitions = self.config.num_layers // self.config.num_groups
        *layers, last = (layer for group in self.transformer_layers for _ in range(repetitions) for layer in group)
        for layer in layers:
            hidden_states = layer(hidden_states, mask, None, **kwargs)
        if positions == "first":
            hidden_states = self._first_of(last, hidden_states, mask, **kwargs)
        else:
            hidden_states = last(hidden_states, mask, None, **kwargs)
            hidden_states = hidden_states if row is None else row.unpack(hidden_states)

        pooled = None if self.pooled_dense is None else torch.tanh(fast_linear(self.pooled_dense, hidden_states[:, 0]))
        if positions == "unmasked" and _is_padding_mask(attention_mask):
            hidden_states = hidden_states.masked_fill((attention_mask == 0).unsqueeze(-1).to(hidden_states.device), 0.0)
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=pooled)

    def _embed(
        self,
        input_ids: Int[Tensor, "batch seq"] | None,
        token_type_ids: Int[Tensor, "batch seq"] | None,
        position_ids: Int[Tensor, "batch seq"] | None,
        inputs_embeds: Float[Tensor, "batch seq embedding"] | None,
    ) -> Float[Tensor, "batch seq embedding"]:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Pass exactly one of input_ids and inputs_embeds.")
        if inputs_embeds is None:
            inputs_embeds = self.token_embedding(input_ids)
        batch_shape, device = inputs_embeds.shape[:2], inputs_embeds.device
        if position_ids is None:
            # Under torch.export the length may be a symbol. Then the exporter states its bound.
            if isinstance(batch_shape[1], int) and batch_shape[1] > self.config.max_sequence_length:
                raise ValueError(
                    f"A sequence of {batch_shape[1]} tokens is longer than max_sequence_length="
                    f"{self.config.max_sequence_length}; truncate the texts."
                )
            position_ids = torch.arange(batch_shape[1], device=device).unsqueeze(0)
        if token_type_ids is None:
            token_type_ids = torch.zeros((1, 1), dtype=torch.long, device=device).expand(batch_shape)
        embeddings = inputs_embeds + self.position_embedding(position_ids) + self.segment_embedding(token_type_ids)
        return self.embeddings_dropout(self.embeddings_layer_norm(embeddings))

    def _packed_row(
        self,
        embeddings: Float[Tensor, "batch seq embedding"],
        attention_mask: Any,
        packed_positions: Int[Tensor, "batch seq"] | None,
        positions: str,
    ) -> PackedRow | None:
        """Return the packed form of a batch, if it gives the same values for less work. It does with sdpa."""
        if is_tracing(embeddings) or self.config._attn_implementation != "sdpa" or not self._packs(embeddings):
            return None
        if packed_positions is not None and positions != "first" and (packed_positions == 0)[:, 1:].any():
            return None if self._layers_have_hooks() else PackedRow.from_position_ids(packed_positions)
        if positions == "all" or not _is_padding_mask(attention_mask) or not attention_mask.any():
            return None
        if attention_mask.shape != embeddings.shape[:2] or self._layers_have_hooks():
            return None  # the backend raises for a mask of a wrong shape
        if (positions == "first" or self.pooled_dense is not None) and not attention_mask[:, 0].all():
            return None  # the first position is needed even if it is padding
        return PackedRow.from_mask(attention_mask.to(embeddings.device))

    def _packs(self, embeddings: Float[Tensor, "batch seq embedding"]) -> bool:
        """Return whether a packed row is faster on this device. A GPU must compute all sequences at once."""
        head_dim = self.config.hidden_dim // self.config.num_heads
        return embeddings.device.type == "cpu" or (not self.training and has_flash_attention(embeddings, head_dim))

    def _first_of(
        self,
        layer: nn.Module,
        hidden_states: Float[Tensor, "batch seq hidden"],
        mask: Any,
        **kwargs: Any,
    ) -> Float[Tensor, "batch 1 hidden"]:
        """Run the last layer for the first position of each text only."""
        if "row" in kwargs:
            return layer(hidden_states, mask, kwargs["row"].first_indices, **kwargs).transpose(0, 1)
        if (
            self.config._attn_implementation not in {"sdpa", "eager"}
            or _has_options_of_sdpa(kwargs)
            or (not is_tracing(hidden_states) and self._layers_have_hooks())
        ):
            return layer(hidden_states, mask, None, **kwargs)[:, :1]
        mask = None if mask is None else mask[:, :, :1]
        return layer(hidden_states, mask, slice(0, 1), **kwargs)

    def _layers_take_fast_path(self, states: Tensor) -> bool:
        """Return whether oneDNN computes all linear layers. Without a check here, each layer checks itself."""
        layers = [layer for group in self.transformer_layers for layer in group]
        if not all(
            type(layer) is AlbertHubLayer and type(layer.self_attention_layer) is AlbertHubAttention for layer in layers
        ):
            return False
        return takes_fast_path(states, [linear for layer in layers for linear in layer.linear_layers()])

    def _layers_have_hooks(self) -> bool:
        """Return whether the layers or their submodules have hooks, which expect (batch, seq, width).

        transformers' own hooks do not count. They stay after hidden states were requested once, and then do nothing.
        """
        return any(
            getattr(hook, "__module__", None) != OutputRecorder.__module__
            for module in self.transformer_layers.modules()
            for hooks in (
                module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks
            )
            for hook in hooks.values()
        )  # fmt: skip

    def _attention_mask(
        self,
        inputs_embeds: Float[Tensor, "batch seq embedding"],
        attention_mask: Any,
        packed_positions: Int[Tensor, "batch seq"] | None,
    ) -> Any:
        """Return the mask in the form of the attention backend, or None if no key is masked."""
        if isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 4:
            return self._whole_attention_mask(inputs_embeds, attention_mask)
        only_own_sequence = None
        if packed_positions is not None:
            starts = (packed_positions == 0)[:, 1:]
            # A traced graph cannot branch on values. There the mask is always created.
            if is_tracing(packed_positions) or starts.any():
                if not is_flash_attention_requested(self.config):
                    sequence = nn.functional.pad(starts.cumsum(-1), (1, 0)).expand(inputs_embeds.shape[:2])
                    only_own_sequence = packed_sequence_mask_function(sequence)
                elif len(inputs_embeds) > 1:
                    raise ValueError("Flash attention takes one packed row, or an attention_mask.")
                elif not is_tracing(packed_positions) and packed_positions[0, 0] != 0:
                    raise ValueError("Flash attention takes a packed row that begins at position 0.")
        if attention_mask is None and only_own_sequence is None:
            return None
        return create_bidirectional_mask(
            self.config, inputs_embeds, attention_mask, and_mask_function=only_own_sequence
        )

    def _whole_attention_mask(
        self,
        inputs_embeds: Float[Tensor, "batch seq embedding"],
        attention_mask: Float[Tensor, "batch 1 seq seq"] | Bool[Tensor, "batch 1 seq seq"],
    ) -> Any:
        backend = self.config._attn_implementation
        if is_flash_attention_requested(self.config):
            raise ValueError("Flash attention takes an attention_mask of shape (batch, seq).")
        if attention_mask.is_floating_point():
            if backend == "flex_attention" and attention_mask.device.type == "cpu":
                raise ValueError("Flex attention on a CPU needs a boolean mask. torch crashes on others.")
            return attention_mask  # added to the scores
        visible = attention_mask.bool()
        if backend == "sdpa":
            return visible
        if backend == "flex_attention":
            return create_bidirectional_mask(
                self.config,
                inputs_embeds,
                None,
                and_mask_function=lambda batch, _, query, key: visible[batch, 0, query, key],
            )
        mask = torch.zeros_like(visible, dtype=inputs_embeds.dtype)
        return mask.masked_fill(~visible, torch.finfo(mask.dtype).min)


class AlbertHubMaskedLMHead(nn.Module):
    """KerasHub's `MaskedLMHead`: scores of all tokens at every position.

    Source:
        keras_hub/src/layers/modeling/masked_lm_head.py.
    """

    def __init__(self, config: AlbertHubConfig) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(config.hidden_dim, config.embedding_dim)
        self.activation = ACT2FN[config.activation]
        self.intermediate_layer_norm = nn.LayerNorm(config.embedding_dim, eps=config.masked_lm_layer_norm_epsilon)
        self.decoder: nn.Module = nn.Linear(config.embedding_dim, config.vocabulary_size)  # the weight is tied

    def forward(self, sequence_output: Float[Tensor, "batch seq hidden"]) -> Float[Tensor, "batch seq vocabulary"]:
        """Project to the width of the embeddings, and compute the product with all token embeddings."""
        embeddings = self.intermediate_layer_norm(
            fast_linear(self.intermediate_dense, sequence_output, self.activation)
        )
        return fast_linear(self.decoder, embeddings)


class _WithMaskedLMHead(AlbertHubPreTrainedModel):
    """Base class of the two models with a masked-LM head."""

    _tied_weights_keys = {"masked_lm_head.decoder.weight": "backbone.token_embedding.weight"}
    _tp_plan = {"masked_lm_head.decoder": "colwise_gather_output"}

    masked_lm_head: AlbertHubMaskedLMHead

    def get_output_embeddings(self) -> nn.Module:
        """Return the output layer. Its weight is the token embedding."""
        return self.masked_lm_head.decoder

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the output layer."""
        self.masked_lm_head.decoder = new_embeddings


class AlbertHubForMaskedLM(_WithMaskedLMHead):
    """ALBERT with a masked-LM head: KerasHub's `AlbertMaskedLM`, with scores at every position.

    Source:
        keras_hub/src/models/albert/albert_masked_lm.py.
    """

    _keys_to_ignore_on_load_unexpected = [r"^backbone\.pooled_dense\."]  # KerasHub saves the pooler too

    def __init__(self, config: AlbertHubConfig) -> None:
        super().__init__(config)
        self.backbone = AlbertHubModel(config, add_pooling_layer=False)
        self.masked_lm_head = AlbertHubMaskedLMHead(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Int[Tensor, "batch seq"] | None = None,
        attention_mask: Int[Tensor, "batch seq"] | None = None,
        token_type_ids: Int[Tensor, "batch seq"] | None = None,
        position_ids: Int[Tensor, "batch seq"] | None = None,
        inputs_embeds: Float[Tensor, "batch seq embedding"] | None = None,
        labels: Int[Tensor, "batch seq"] | None = None,
        **kwargs: Any,
    ) -> MaskedLMOutput:
        """Score all tokens at every position.

        Besides the arguments of `AlbertHubModel`:
            labels: Target token ids. -100 is ignored.

        Returns:
            `logits` (batch, seq, vocabulary_size), and with labels the cross-entropy as `loss`.
        """
        outputs = self.backbone(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        logits = self.masked_lm_head(outputs.last_hidden_state)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocabulary_size, **kwargs)
        return MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


@dataclass
class AlbertHubForPreTrainingOutput(ModelOutput):
    """Output of `AlbertHubForPreTraining`, with the fields of transformers' `AlbertForPreTrainingOutput`."""

    loss: torch.Tensor | None = None
    prediction_logits: torch.Tensor | None = None
    sop_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class AlbertHubForPreTraining(_WithMaskedLMHead):
    """ALBERT with its pretraining heads: masked LM and sentence order."""

    accepts_loss_kwargs = False  # the loss is a mean, so `Trainer` must average over accumulated batches

    def __init__(self, config: AlbertHubConfig) -> None:
        super().__init__(config)
        self.backbone = AlbertHubModel(config)
        self.masked_lm_head = AlbertHubMaskedLMHead(config)
        self.classifier_dropout = _classifier_dropout(config)
        self.sentence_order_classifier = _classifier(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Int[Tensor, "batch seq"] | None = None,
        attention_mask: Int[Tensor, "batch seq"] | None = None,
        token_type_ids: Int[Tensor, "batch seq"] | None = None,
        position_ids: Int[Tensor, "batch seq"] | None = None,
        inputs_embeds: Float[Tensor, "batch seq embedding"] | None = None,
        labels: Int[Tensor, "batch seq"] | None = None,
        sentence_order_label: Int[Tensor, " batch"] | None = None,
        **kwargs: Any,
    ) -> AlbertHubForPreTrainingOutput:
        """Score all tokens at every position, and the order of the segments.

        Besides the arguments of `AlbertHubModel`:
            labels: Target token ids. -100 is ignored.
            sentence_order_label: 0 if the segments are in order, 1 if they are switched.

        Returns:
            `prediction_logits` (batch, seq, vocabulary_size), `sop_logits` (batch, num_labels), and with both labels
            the sum of both cross-entropies as `loss`.
        """
        outputs = self.backbone(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        prediction_logits = self.masked_lm_head(outputs.last_hidden_state)
        sop_logits = self.sentence_order_classifier(self.classifier_dropout(outputs.pooler_output))
        loss = None
        if labels is not None and sentence_order_label is not None:
            cross_entropy = nn.functional.cross_entropy
            loss = cross_entropy(prediction_logits.flatten(0, 1).float(), labels.flatten())
            loss = loss + cross_entropy(sop_logits.float(), sentence_order_label.flatten())
        return AlbertHubForPreTrainingOutput(
            loss=loss,
            prediction_logits=prediction_logits,
            sop_logits=sop_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


def _classifier(config: AlbertHubConfig) -> nn.Linear:
    return nn.Linear(config.hidden_dim, config.num_labels or 0)


def _classifier_dropout(config: AlbertHubConfig) -> nn.Dropout:
    return nn.Dropout(config.dropout if config.classifier_dropout is None else config.classifier_dropout)


class AlbertHubForSequenceClassification(AlbertHubPreTrainedModel):
    """ALBERT with a text classifier: KerasHub's `AlbertTextClassifier` without its activation.

    Source:
        keras_hub/src/models/albert/albert_text_classifier.py.
    """

    def __init__(self, config: AlbertHubConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.backbone = AlbertHubModel(config)
        self.classifier_dropout = _classifier_dropout(config)
        self.classifier = _classifier(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Int[Tensor, "batch seq"] | None = None,
        attention_mask: Int[Tensor, "batch seq"] | None = None,
        token_type_ids: Int[Tensor, "batch seq"] | None = None,
        position_ids: Int[Tensor, "batch seq"] | None = None,
        inputs_embeds: Float[Tensor, "batch seq embedding"] | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Score the classes of every text.

        Besides the arguments of `AlbertHubModel`:
            labels: Class indices (batch,), or floats (batch, num_labels), depending on `config.problem_type`.

        Returns:
            `logits` (batch, num_labels), and with labels the `loss` that `problem_type` names: `regression` (mean
            squared error), `single_label_classification` (cross-entropy) or `multi_label_classification` (binary
            cross-entropy). By default it follows from the number and the dtype of the labels.
        """
        outputs = self.backbone(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, "first", return_dict=True, **kwargs
        )
        logits = self.classifier(self.classifier_dropout(outputs.pooler_output))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config, **kwargs)
            items = kwargs.get("num_items_in_batch")
            if items is not None and self.config.problem_type != "single_label_classification":
                # transformers' other losses are means over the batch. `Trainer` needs its share of all items.
                loss = loss * labels.numel() / items
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class AlbertHubForTokenClassification(AlbertHubPreTrainedModel):
    """ALBERT with a token classifier, for example for named entities."""

    _keys_to_ignore_on_load_unexpected = [r"^backbone\.pooled_dense\."]

    def __init__(self, config: AlbertHubConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.backbone = AlbertHubModel(config, add_pooling_layer=False)
        self.classifier_dropout = _classifier_dropout(config)
        self.classifier = _classifier(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Int[Tensor, "batch seq"] | None = None,
        attention_mask: Int[Tensor, "batch seq"] | None = None,
        token_type_ids: Int[Tensor, "batch seq"] | None = None,
        position_ids: Int[Tensor, "batch seq"] | None = None,
        inputs_embeds: Float[Tensor, "batch seq embedding"] | None = None,
        labels: Int[Tensor, "batch seq"] | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput:
        """Score the classes of every token.

        Besides the arguments of `AlbertHubModel`:
            labels: Class indices. -100 is ignored.

        Returns:
            `logits` (batch, seq, num_labels), and with labels the cross-entropy as `loss`.
        """
        outputs = self.backbone(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        logits = self.classifier(self.classifier_dropout(outputs.last_hidden_state))
        loss = self.loss_function(logits, labels, self.config, **kwargs) if labels is not None else None
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class AlbertHubForQuestionAnswering(AlbertHubPreTrainedModel):
    """ALBERT with a span head for extractive question answering."""

    _keys_to_ignore_on_load_unexpected = [r"^backbone\.pooled_dense\."]

    def __init__(self, config: AlbertHubConfig) -> None:
        super().__init__(config)
        if config.num_labels != 2:
            raise ValueError(f"A span has a start and an end: num_labels must be 2, not {config.num_labels}.")
        self.backbone = AlbertHubModel(config, add_pooling_layer=False)
        self.qa_outputs = _classifier(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Int[Tensor, "batch seq"] | None = None,
        attention_mask: Int[Tensor, "batch seq"] | None = None,
        token_type_ids: Int[Tensor, "batch seq"] | None = None,
        position_ids: Int[Tensor, "batch seq"] | None = None,
        inputs_embeds: Float[Tensor, "batch seq embedding"] | None = None,
        start_positions: Int[Tensor, " batch"] | None = None,
        end_positions: Int[Tensor, " batch"] | None = None,
        **kwargs: Any,
    ) -> QuestionAnsweringModelOutput:
        """Score every token as the first and as the last of the answer.

        Besides the arguments of `AlbertHubModel`:
            start_positions: Index of the answer's first token. An index beyond the text is ignored.
            end_positions: Index of the answer's last token.

        Returns:
            `start_logits` and `end_logits` (batch, seq), and with both positions the mean of both cross-entropies as
            `loss`.
        """
        outputs = self.backbone(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        start_logits, end_logits = self.qa_outputs(outputs.last_hidden_state).unbind(-1)
        start_logits, end_logits = start_logits.contiguous(), end_logits.contiguous()
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = self.loss_function(start_logits, end_logits, start_positions, end_positions, **kwargs)
        return QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class AlbertHubForMultipleChoice(AlbertHubPreTrainedModel):
    """ALBERT with a multiple-choice head."""

    accepts_loss_kwargs = False  # see AlbertHubForPreTraining

    def __init__(self, config: AlbertHubConfig) -> None:
        super().__init__(config)
        self.backbone = AlbertHubModel(config)
        self.classifier_dropout = _classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_dim, 1)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Int[Tensor, "batch choices seq"] | None = None,
        attention_mask: Int[Tensor, "batch choices seq"] | None = None,
        token_type_ids: Int[Tensor, "batch choices seq"] | None = None,
        position_ids: Int[Tensor, "batch choices seq"] | None = None,
        inputs_embeds: Float[Tensor, "batch choices seq embedding"] | None = None,
        labels: Int[Tensor, " batch"] | None = None,
        **kwargs: Any,
    ) -> MultipleChoiceModelOutput:
        """Score every choice.

        Besides the arguments of `AlbertHubModel`, which have the choices as their second dimension:
            labels: Index of the correct choice.

        Returns:
            `logits` (batch, choices), and with labels the cross-entropy as `loss`.

        Raises:
            ValueError: Both or neither of `input_ids` and `inputs_embeds` were given.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Pass exactly one of input_ids and inputs_embeds.")
        choices = (input_ids if input_ids is not None else inputs_embeds).shape[1]  # type: ignore[union-attr]
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        flat = (None if tensor is None else tensor.flatten(0, 1) for tensor in inputs)
        outputs = self.backbone(*flat, "first", return_dict=True, **kwargs)
        logits = self.classifier(self.classifier_dropout(outputs.pooler_output)).view(-1, choices)
        loss = nn.functional.cross_entropy(logits.float(), labels) if labels is not None else None
        return MultipleChoiceModelOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


__all__ = [
    "AlbertHubForMaskedLM",
    "AlbertHubForMultipleChoice",
    "AlbertHubForPreTraining",
    "AlbertHubForQuestionAnswering",
    "AlbertHubForSequenceClassification",
    "AlbertHubForTokenClassification",
    "AlbertHubModel",
    "AlbertHubPreTrainedModel",
]
