"""What a model of Keras has and `AlbertBackbone` has not, and where to find it."""

from __future__ import annotations

from collections.abc import Mapping


_TRAIN = "train it as a module of torch, or train AlbertHubModel or a class with a head with transformers' Trainer"
_QUANTIZE = (
    "quantize AlbertHubModel with torchao, or the preset in KerasHub, which AlbertHubModel.from_preset(..., "
    "dtype='int8') loads"
)
_PARAMETERS = "parameters() and state_dict() have torch's layout, and save_weights writes that of Keras"
_CALL = "call the backbone itself"
_PRESET = "use save_to_preset for a preset, save_weights for a file, or export_to_transformers for a repository"
_CONFIG = "get_config has the arguments, and summary prints the layers"

# fmt: off
_WAYS: Mapping[str, tuple[str, ...]] = {
    _TRAIN: (
        "fit", "evaluate", "train_on_batch", "test_on_batch", "train_step", "test_step", "train_function",
        "test_function", "make_train_function", "make_test_function", "compiled", "compile_from_config",
        "get_compile_config", "jit_compile", "run_eagerly", "steps_per_execution", "loss", "losses", "add_loss",
        "compute_loss", "stateless_compute_loss", "metrics", "metrics_names", "metrics_variables", "add_metric",
        "compute_metrics", "get_metrics_result", "reset_metrics", "activity_regularizer", "optimizer",
        "stop_training", "stop_evaluating",
    ),
    _QUANTIZE: (
        "quantize", "quantized_build", "quantized_call", "quantization_mode", "get_quantization_layer_structure",
    ),
    _PARAMETERS: (
        "weights", "variables", "trainable_weights", "trainable_variables", "non_trainable_weights",
        "non_trainable_variables", "get_weights", "set_weights", "add_weight", "add_variable", "get_state_tree",
        "set_state_tree", "load_own_variables", "save_own_variables", "torch_params",
    ),
    _CALL: (
        "call", "symbolic_call", "stateless_call", "rematerialized_call", "build", "built", "build_from_config",
        "get_build_config", "call_signature_parameters", "compute_mask", "compute_output_shape", "compute_output_spec",
        "embeddings_add", "supports_jit", "supports_masking", "autocast",
    ),
    "predict takes a batch or a whole data set": (
        "predict_on_batch", "predict_step", "predict_function", "make_predict_function", "stop_predicting",
    ),
    _PRESET: ("save", "export"),
    _CONFIG: (
        "to_json", "input", "inputs", "input_shape", "input_dtype", "input_spec", "output", "outputs", "output_names",
        "output_shape", "operations", "path",
    ),
}
# fmt: on

_WAY_OF = {name: way for way, names in _WAYS.items() for name in names}


def missing_attribute(name: str) -> str | None:
    """Return one sentence on an attribute that only Keras has: what to use instead. None for other names."""
    way = _WAY_OF.get(name)
    return None if way is None else f"AlbertBackbone has no {name} as in Keras: {way}."
