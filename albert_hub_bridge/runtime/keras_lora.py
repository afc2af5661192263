"""LoRA of a backbone, with the methods and the files of KerasHub."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from albert_hub_bridge.disk.atomic import new_file
from albert_hub_bridge.lora.factors import LoraLayer
from albert_hub_bridge.lora.keras_file import KERAS_SUFFIX, rank_of, read_keras_factors, write_keras_factors
from albert_hub_bridge.lora.torch_layers import (
    LoraKernel,
    enable_lora,
    factors_as_arrays,
    lora_kernels,
    set_factors,
)
from albert_hub_bridge.runtime.keras_model import KerasModel, absolute_path


_OTHER_MODELS = ("query_dense", "value_dense")  # KerasHub has one list for all models


class KerasLora(KerasModel):
    """The methods of KerasHub for LoRA."""

    def default_lora_layer_names(self) -> list[str]:
        """Return the names of the layers that `enable_lora` adapts by default: `query` and `value` in ALBERT."""
        return [*_OTHER_MODELS, "query", "value"]

    def enable_lora(self, rank: int, target_layer_names: Sequence[str] | None = None) -> None:
        """Freeze the backbone, and train factors of the kernels of some layers instead.

        As in Keras, the biases of these layers are trained too, and the factors are float32.

        Args:
            rank: The rank of the factors.
            target_layer_names: Names of layers: `query`, `key`, `value`, `attention_output`,
                `feedforward_intermediate_dense`, `feedforward_output_dense`, `embedding_projection` or `pooled_dense`.
                `default_lora_layer_names()` by default.

        Raises:
            ValueError: The rank is not a positive integer, LoRA is enabled already, or a name belongs to no layer.
        """
        names = self.default_lora_layer_names() if target_layer_names is None else target_layer_names
        names = [name for name in names if name not in _OTHER_MODELS]
        enable_lora(self.model, self.architecture, rank, names)
        self._trainable = True

    def save_lora_weights(self, filepath: str | Path) -> None:
        """Write the factors into a file for KerasHub's `load_lora_weights`. An existing file is replaced.

        Args:
            filepath: A file that ends in `.lora.h5`.

        Raises:
            ValueError: LoRA is not enabled, or the name of the file ends in something else.
            TargetError: The file cannot be written.
        """
        if not (kernels := self._lora_kernels()):
            raise ValueError("The backbone has no LoRA. Call enable_lora(rank) first.")
        with new_file(absolute_path(filepath, KERAS_SUFFIX), overwrite=True) as staged:
            write_keras_factors(factors_as_arrays(kernels), staged)

    def load_lora_weights(self, filepath: str | Path) -> None:
        """Load the factors of a file of KerasHub's `save_lora_weights`.

        If LoRA is not enabled, it is enabled for the layers of the file. KerasHub would load only query and value.

        Args:
            filepath: A file that ends in `.lora.h5`.

        Raises:
            ValueError: LoRA is enabled with another rank or for other layers, or the name ends in something else.
            CheckpointError: The file is damaged, or was saved from another architecture. All problems are listed.
            FileNotFoundError: The file does not exist.
        """
        factors = read_keras_factors(absolute_path(filepath, KERAS_SUFFIX), self.architecture)
        if not self._lora_kernels():
            self.enable_lora(rank_of(factors), target_layer_names=_names(factors))
        kernels = self._lora_kernels()
        rank = len(next(iter(kernels.values())).b)
        if (rank, _names(kernels)) != (rank_of(factors), _names(factors)):
            raise ValueError(
                f"{filepath} has rank {rank_of(factors)} for {', '.join(_names(factors))}, and the backbone has rank "
                f"{rank} for {', '.join(_names(kernels))}. Load it into a backbone without LoRA."
            )
        set_factors(kernels, factors)

    def _lora_kernels(self) -> dict[LoraLayer, LoraKernel]:
        return lora_kernels(self.model, self.architecture)


def _names(layers: Iterable[LoraLayer]) -> list[str]:
    return list(dict.fromkeys(layer.keras for layer in layers))
