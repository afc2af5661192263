"""The configuration of `AlbertHubModel`: KerasHub's argument names, with transformers' names as aliases."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from .architecture import FIELDS, architecture_problems, is_epsilon, is_rate


class _AutoMap:
    """`auto_map` of a configuration without code in its repository: MLflow finds the Auto class of a model by it.

    It is never saved. transformers prefers registered classes to it. Where a repository has code, the configuration has
    the `auto_map` of the repository instead.
    """

    def __get__(self, config: Any, owner: type) -> Any:
        if config is None:
            return self
        classes = {"AutoConfig": "configuration_albert_hub.AlbertHubConfig"}
        for name in config.architectures or ["AlbertHubModel"]:
            classes[f"Auto{name.replace('AlbertHub', '').replace('For', 'ModelFor')}"] = f"modeling_albert_hub.{name}"
        return classes


@strict
class AlbertHubConfig(PreTrainedConfig):
    r"""Configuration of an `AlbertHubModel` and its heads. The defaults are those of `albert_base_en_uncased`.

    The fields of the encoder are documented at `Architecture`. transformers' names for them (`hidden_size`,
    `num_hidden_layers`, ...) can also be read, set and passed.

    Args:
        classifier_dropout (`float`, *optional*, defaults to 0.1):
            Dropout rate before a classifier, in [0, 1); `None` for the encoder's rate.
        classifier_activation (`str`, *optional*):
            Activation of KerasHub's classifier: `softmax`, `sigmoid`, or `None`. The models here always return scores
            before it (`logits`). Pipelines follow `problem_type`.
        masked_lm_layer_norm_epsilon (`float`, *optional*, defaults to 1e-5):
            Epsilon of the masked-LM head's layer norm.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the truncated normal that initializes new weights.
        pad_token_id (`int`, *optional*, defaults to 0):
            The id of `<pad>` in ALBERT vocabularies.
        bos_token_id (`int`, *optional*, defaults to 2):
            The id of `[CLS]` in ALBERT vocabularies.
        eos_token_id (`int`, *optional*, defaults to 3):
            The id of `[SEP]` in ALBERT vocabularies.

    Raises:
        StrictDataclassError: A value has the wrong type, or the architecture is impossible.
        ValueError: A field and its aliases were given different values.

    Example:

    ```python
    >>> from albert_hub_bridge import AlbertHubConfig

    >>> config = AlbertHubConfig(num_layers=24, num_heads=16, hidden_dim=1024, intermediate_dim=4096)
    >>> config.hidden_size
    1024
    ```
    """

    model_type = "albert_hub"
    attribute_map = {
        "vocab_size": "vocabulary_size",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "embedding_size": "embedding_dim",
        "hidden_size": "hidden_dim",
        "intermediate_size": "intermediate_dim",
        "num_hidden_groups": "num_groups",
        "inner_group_num": "num_inner_repetitions",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "max_position_embeddings": "max_sequence_length",
        "type_vocab_size": "num_segments",
        "hidden_act": "activation",
        "layer_norm_eps": "layer_norm_epsilon",
        "classifier_dropout_prob": "classifier_dropout",
    }

    vocabulary_size: int = 30000
    num_layers: int = 12
    num_heads: int = 12
    embedding_dim: int = 128
    hidden_dim: int = 768
    intermediate_dim: int = 3072
    num_groups: int = 1
    num_inner_repetitions: int = 1
    dropout: int | float = 0.0
    max_sequence_length: int = 512
    num_segments: int = 2
    activation: str = "gelu_pytorch_tanh"
    layer_norm_epsilon: int | float = 1e-12
    attention_dropout: int | float | None = None
    classifier_dropout: int | float | None = 0.1
    classifier_activation: str | None = None
    masked_lm_layer_norm_epsilon: int | float = 1e-5
    initializer_range: float = 0.02
    pad_token_id: int | None = 0
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 3
    tie_word_embeddings: bool = True

    auto_map = _AutoMap()

    def __post_init__(self, **kwargs: Any) -> None:
        if __name__.startswith("albert_hub_bridge."):  # only classes that came with a repository's code save that code
            kwargs.pop("auto_map", None)
        # A field and its alias must agree. Refuse rather than pick one.
        given: dict[str, dict[str, Any]] = {}
        for alias, name in self.attribute_map.items():
            if alias in kwargs:
                own = {name: getattr(self, name)} if getattr(self, name) != getattr(type(self), name) else {}
                given.setdefault(name, own)[alias] = kwargs[alias]
        for name, values in given.items():
            first, *others = values.values()
            if any(value != first for value in others):
                raise ValueError(f"AlbertHubConfig has one {name}, but these were given: {values}.")
        super().__post_init__(**kwargs)

    @property
    def num_layer_runs(self) -> int:
        """Number of encoder layers that a sequence passes. `output_hidden_states` gives one state more."""
        return self.num_layers * self.num_inner_repetitions

    @property
    def base_model_tp_plan(self) -> dict[str, str]:  # type: ignore[override]
        """Tensor-parallel plan: heads, feed-forward blocks and the vocabulary are split."""
        return {"token_embedding": "embedding_rowwise"} | {
            f"{layer}.{module}": style
            for layer in self._layer_names
            for module, style in {
                "self_attention_layer.query_dense": "colwise",
                "self_attention_layer.key_dense": "colwise",
                "self_attention_layer.value_dense": "colwise",
                "self_attention_layer.output_dense": "rowwise",
                "feedforward_intermediate_dense": "colwise",
                "feedforward_output_dense": "rowwise",
            }.items()
        }

    @property
    def base_model_fsdp_plan(self) -> dict[str, str]:  # type: ignore[override]
        """FSDP2 plan: the token embedding and each layer are gathered separately."""
        return {"token_embedding": "free_full_weight"} | dict.fromkeys(self._layer_names, "free_full_weight")

    @property
    def _layer_names(self) -> list[str]:
        # In a plan, a number is read as a wildcard unless it follows another number.
        return [f"transformer_layers.*.{inner}" for inner in range(self.num_inner_repetitions)]

    def validate_architecture(self) -> None:
        """Raise for impossible settings. `@strict` calls this at construction, on saving and in `validate()`."""
        problems = architecture_problems({name: getattr(self, name) for name in FIELDS})
        if self.classifier_dropout is not None and not is_rate(self.classifier_dropout):
            problems.append(f"classifier_dropout must be a number in [0, 1) or None, not {self.classifier_dropout!r}")
        if self.classifier_activation not in (None, "softmax", "sigmoid"):
            problems.append(
                f"classifier_activation must be None, 'softmax' or 'sigmoid', not {self.classifier_activation!r}"
            )
        if not is_epsilon(self.masked_lm_layer_norm_epsilon):
            epsilon = self.masked_lm_layer_norm_epsilon
            problems.append(f"masked_lm_layer_norm_epsilon must be a positive number up to 1, not {epsilon!r}")
        if problems:
            raise ValueError("Impossible ALBERT: " + "; ".join(problems) + ".")


__all__ = ["AlbertHubConfig"]
