"""The file of Keras' `save_weights`: the weights of a backbone alone, as in a preset."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from albert_hub_bridge.checkpoint import Checkpoint, check_layers, match_weights
from albert_hub_bridge.formats.hdf5 import read_datasets
from albert_hub_bridge.formats.lazy_tensors import LazyTensor
from albert_hub_bridge.layouts.keras.quantization import dequantize
from albert_hub_bridge.layouts.keras.weight_plans import plan_file
from albert_hub_bridge.layouts.keras.weights import current_name
from albert_hub_bridge.layouts.weight_files import write_weights
from albert_hub_bridge.mapping.axes import axis_sizes
from albert_hub_bridge.mapping.weights import weight_rules
from albert_hub_bridge.model.architecture import Architecture


KERAS_SUFFIX = ".weights.h5"


def read_weights_file(file: Path, architecture: Architecture, resources: ExitStack) -> Mapping[str, LazyTensor]:
    """Read the weights of a backbone by albert_hub names, unread. The state of an optimizer is left out.

    Args:
        file: The file.
        architecture: The architecture of the backbone.
        resources: Closes the file.

    Raises:
        FileError, WeightsError: The file is damaged, or does not fit the architecture. All problems are listed.
        OSError: The file does not exist, or cannot be read.
    """
    datasets = read_datasets(file, resources)
    tensors = {current_name(name): tensor for name, tensor in datasets.items() if not name.startswith("optimizer/")}
    tensors, _ = dequantize(file, tensors)
    check_layers(file, architecture, len(tensors))
    expected = {rule.keras: rule for rule in weight_rules(architecture)}
    return match_weights(file, tensors, expected, axis_sizes(architecture), "keras")


def write_weights_file(checkpoint: Checkpoint, file: Path) -> None:
    """Write the weights of a backbone, with its pooler, into a new file.

    Raises:
        OSError: The system did not write the file.
    """
    write_weights(checkpoint, [plan_file(checkpoint, file, checkpoint.encoder_rules)], "keras", None)
