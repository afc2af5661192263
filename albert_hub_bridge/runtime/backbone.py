"""KerasHub's `AlbertBackbone` in PyTorch, without Keras and TensorFlow."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.errors import ConfigurationError
from albert_hub_bridge.hubs.published import PUBLISHED_PRESETS
from albert_hub_bridge.layouts.keras.compatibility import unsupported_by_keras, with_pooler
from albert_hub_bridge.layouts.keras.objects import policy
from albert_hub_bridge.layouts.layout import ReadOptions
from albert_hub_bridge.layouts.registry import pull, read_checkpoint, read_configuration
from albert_hub_bridge.model.architecture import KERAS_FIELDS, Architecture
from albert_hub_bridge.model.configuration_albert_hub import AlbertHubConfig
from albert_hub_bridge.model.modeling_albert_hub import AlbertHubModel
from albert_hub_bridge.runtime.dtype_policy import DTypePolicy, apply_policy, dtype_policy
from albert_hub_bridge.runtime.keras_files import KerasFiles
from albert_hub_bridge.runtime.keras_lora import KerasLora
from albert_hub_bridge.runtime.keras_model import checked_inputs
from albert_hub_bridge.runtime.live_keras import read_keras_model
from albert_hub_bridge.runtime.stored_weights import set_weights


if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


class Backbone(KerasFiles, KerasLora):
    """Base class of backbones, as in KerasHub. `Backbone.from_preset` finds the class of a preset: `AlbertBackbone`.

    Raises:
        TypeError: It is called. KerasHub's takes inputs and outputs of layers, which are no layers of torch.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        name: {
            "metadata": {"description": preset.description, "params": preset.parameters, "path": "albert"},
            "kaggle_handle": f"kaggle://{preset.kaggle}",
        }
        for name, preset in PUBLISHED_PRESETS.items()
    }

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Refuse to make a backbone of no class."""
        if cls is Backbone:
            raise TypeError(
                "Backbone is the base class, and takes no inputs and outputs as in Keras. Call AlbertBackbone(...), or "
                "Backbone.from_preset(preset)."
            )
        return super().__new__(cls)

    @classmethod
    def from_preset(
        cls, preset: str | Path, load_weights: bool = True, *, allow_pickle: bool = False, **overrides: Any
    ) -> AlbertBackbone:
        """Load a backbone from a KerasHub preset, or from a Hub repository of any layout.

        Args:
            preset: A folder, the name of a published preset, or a handle, as in `albert_hub.convert`.
            load_weights: Whether to load the weights. Otherwise they are random.
            allow_pickle: Whether to read weights that are pickled.
            **overrides: Constructor arguments that replace those of the preset, such as `dropout`, `dtype` and `name`.
                As in KerasHub, the dtype is float32 unless it is given here, even if the preset has another.

        Raises:
            SourceError: The preset cannot be found.
            CheckpointError: The preset is not valid, or KerasHub's AlbertBackbone cannot represent it.
            ValueError: An override does not fit the weights.
        """
        folder = pull(preset).folder
        configuration = read_configuration(folder)
        architecture = configuration.architecture
        if problems := unsupported_by_keras(architecture, None):
            advice = "Convert it to the albert_hub layout, and load that with AlbertHubModel."
            raise ConfigurationError(folder / "config.json", "configuration, for KerasHub,", problems, advice)
        backbone = (cls if issubclass(cls, AlbertBackbone) else AlbertBackbone)(
            **{**architecture.keras_arguments, **overrides}
        )
        if load_weights:
            if changed := _changed_shapes(architecture, backbone.architecture):
                raise ValueError(
                    f"The weights of {preset} do not fit with {', '.join(changed)} overridden. Pass load_weights=False "
                    "for random weights."
                )
            with read_checkpoint(folder, ReadOptions(drop_head=True, allow_pickle=allow_pickle)) as checkpoint:
                if not checkpoint.has_pooler:
                    warnings.warn(f"{preset} has no pooler: pooled_output will be zeros.", stacklevel=2)
                _set_encoder(backbone, with_pooler(checkpoint))
        return backbone


class AlbertBackbone(Backbone):
    """ALBERT encoder with KerasHub's interface: the same arguments, inputs and outputs.

    The model is created in inference mode, as in Keras. To apply dropout, call `train()` or pass `training=True`.

    Args:
        vocabulary_size: Size of the token vocabulary.
        num_layers: Number of times the input runs through a group of layers. Divisible by `num_groups`.
        num_heads: Number of attention heads. Divides `hidden_dim`.
        embedding_dim: Size of the embeddings.
        hidden_dim: Size of the encoder's outputs.
        intermediate_dim: Size of the inner layer of the feed-forward block.
        num_groups: Number of groups of layers. The runs of one group share their parameters.
        num_inner_repetitions: Number of layers in a group.
        dropout: Dropout rate, in [0, 1).
        max_sequence_length: Number of positions: the largest length of a sequence.
        num_segments: Number of segment ids.
        dtype: `"float32"` (the default), `"bfloat16"`, `"float16"`, `"mixed_bfloat16"`, `"mixed_float16"`, a dtype of
            torch, or a policy of Keras. A mixed policy stores float32. Softmax and layer norm compute in float32.
        name: The name of the model.
        trainable: Whether the parameters get gradients.

    Raises:
        ValueError: The arguments contradict each other, or the dtype is unknown.

    Source:
        keras_hub/src/models/albert/albert_backbone.py.

    Example:

    ```python
    >>> backbone = AlbertBackbone.from_preset("./albert_base_en_uncased")
    >>> outputs = backbone({
    ...     "token_ids": np.ones((1, 12), dtype="int32"),
    ...     "segment_ids": np.zeros((1, 12), dtype="int32"),
    ...     "padding_mask": np.ones((1, 12), dtype="int32"),
    ... })
    >>> outputs["sequence_output"].shape
    torch.Size([1, 12, 768])
    ```
    """

    def __init__(
        self,
        vocabulary_size: int,
        num_layers: int,
        num_heads: int,
        embedding_dim: int,
        hidden_dim: int,
        intermediate_dim: int,
        num_groups: int = 1,
        num_inner_repetitions: int = 1,
        dropout: float = 0.0,
        max_sequence_length: int = 512,
        num_segments: int = 2,
        dtype: str | torch.dtype | DTypePolicy | Mapping[str, Any] | None = None,
        *,
        name: str = "albert_backbone",
        trainable: bool = True,
    ) -> None:
        arguments = locals()
        super().__init__(Architecture(**{field: arguments[field] for field in KERAS_FIELDS}), name)
        applied = dtype_policy(dtype)
        self.model = AlbertHubModel(AlbertHubConfig(**self.architecture.keras_arguments))
        apply_policy(self.model, applied)
        self.trainable = trainable
        self.eval()

    def forward(
        self, inputs: Mapping[str, np.ndarray | Int[Tensor, "batch seq"]], training: bool | None = None
    ) -> dict[str, Float[Tensor, ...]]:
        """Encode a batch.

        Args:
            inputs: `token_ids` in [0, vocabulary_size), `segment_ids` in [0, num_segments), and `padding_mask`, 1 for
                tokens and 0 for padding. Each is (batch, seq), a NumPy array or a tensor.
            training: Whether to apply dropout in this call. By default, the mode set by `train()` or `eval()` decides.

        Returns:
            `sequence_output` (batch, seq, hidden_dim) and `pooled_output` (batch, hidden_dim).

        Raises:
            ValueError: An input is missing or unknown.
        """
        token_ids, segment_ids, padding_mask = (
            torch.as_tensor(value).to(device=self.model.device, dtype=torch.long)
            for value in checked_inputs(inputs).values()
        )
        before = self.training
        self.train(before if training is None else training)
        try:
            outputs = self.model(token_ids, attention_mask=padding_mask, token_type_ids=segment_ids)
        finally:
            self.train(before)
        return {"sequence_output": outputs.last_hidden_state, "pooled_output": outputs.pooler_output}

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, the dtype as Keras serializes a policy. KerasHub returns the same."""
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": policy(self.dtype_policy.name),
            **self.architecture.keras_arguments,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> AlbertBackbone:
        """Create a backbone with random weights from the result of `get_config`, here or in KerasHub."""
        return cls(**config)

    @classmethod
    def from_keras(cls, keras_model: Any, **overrides: Any) -> AlbertBackbone:
        """Copy a live backbone of KerasHub, or that of a task.

        LoRA is merged into the kernels, and int8 is dequantized to float32.

        Args:
            keras_model: An `AlbertBackbone` of keras_hub, or a task with one.
            **overrides: Constructor arguments that replace those of the backbone: `dropout`, `dtype`, `name` and
                `trainable`.

        Raises:
            SourceError, CheckpointError: It is another model, or cannot be converted.
            ValueError: An override does not fit the weights.
        """
        checkpoint = read_keras_model(keras_model, ReadOptions(drop_head=True))
        config = getattr(keras_model, "backbone", keras_model).get_config()
        if checkpoint.int8:
            config["dtype"] = checkpoint.dtype
        backbone = cls(**{**config, **overrides})
        if changed := _changed_shapes(checkpoint.architecture, backbone.architecture):
            raise ValueError(f"The weights do not fit with {', '.join(changed)} overridden.")
        _set_encoder(backbone, checkpoint)
        return backbone


def _set_encoder(backbone: AlbertBackbone, checkpoint: Checkpoint) -> None:
    """Give a backbone the weights of a checkpoint, without those of a head."""
    weights = {rule.albert_hub: checkpoint.weights[rule.albert_hub] for rule in checkpoint.encoder_rules}
    set_weights(backbone.model, backbone.architecture, weights)


def _changed_shapes(preset: Architecture, backbone: Architecture) -> list[str]:
    """Return the arguments that differ and change the shape or the number of weights."""
    names = [name for name in KERAS_FIELDS if name not in ("dropout", "num_layers")]
    return [name for name in names if getattr(preset, name) != getattr(backbone, name)]
