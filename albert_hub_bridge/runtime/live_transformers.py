"""Live models of transformers: read one into a checkpoint, and make one from a checkpoint.

A live model is read as the repository that it would be saved as, and made as transformers makes it from a repository.
So it has the same names, and the same refusals. Weights are in no file. Only the tokenizers of transformers are saved
and loaded by files, which are small and temporary.

Source:
    transformers/modeling_utils.py, `save_pretrained` and `from_pretrained`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.disk.strict_json import json_bytes
from albert_hub_bridge.errors import SourceError
from albert_hub_bridge.formats.lazy_tensors import LazyTensor
from albert_hub_bridge.formats.torch_tensors import as_tensor, as_weight
from albert_hub_bridge.layouts.hub.any_tokenizer import write_tokenizer
from albert_hub_bridge.layouts.hub.files import CONFIG, TOKENIZER_CONFIG, TOKENIZER_FILES
from albert_hub_bridge.layouts.hub.repository import (
    read_opened_repository,
    read_repository_configuration,
    repository_config,
)
from albert_hub_bridge.layouts.hub.spelling import SPELLINGS, RepositoryLayout
from albert_hub_bridge.layouts.layout import DEFAULT_READING, ReadOptions
from albert_hub_bridge.mapping.weights import POOLER_RULES


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def read_transformers_model(model: Any, tokenizer: Any = None, options: ReadOptions = DEFAULT_READING) -> Checkpoint:
    """Read a live model of transformers. Its values are read when they are asked for, and shared on a CPU.

    Args:
        model: A model whose configuration has `model_type` `albert` or `albert_hub`.
        tokenizer: A tokenizer of transformers; None for none.
        options: How to read it.

    Raises:
        SourceError: It is another model.
        FileError, ConfigurationError, WeightsError, VocabularyError: As for a repository.
    """
    from transformers import PreTrainedModel

    name = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        rest = "Merge the adapter first: merge_and_unload()." if hasattr(model, "merge_and_unload") else ""
        rest = rest or "convert reads files."
        raise SourceError(f"expected an ALBERT of transformers, found an object of {name}. {rest}")
    layout = next((each for each in SPELLINGS if SPELLINGS[each].model_type == model.config.model_type), None)
    if layout is None:
        raise SourceError(
            f"expected an ALBERT of transformers (model_type 'albert' or 'albert_hub'), found {name} "
            f"(model_type {model.config.model_type!r}). This package only converts ALBERT."
        )
    folder = Path(f"<{name}>")
    config = json.loads(model.config.to_json_string(use_diff=True))
    contents = {CONFIG: json_bytes(config | {"architectures": [name]})}
    source = SourceFolder.in_memory(
        folder, contents | (_files_of_tokenizer(tokenizer) if tokenizer is not None else {})
    )
    configuration = read_repository_configuration(source, layout)
    tensors = {name: as_weight(tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    return read_opened_repository(source, options, layout, configuration, folder, tensors)


def _files_of_tokenizer(tokenizer: Any) -> dict[str, bytes]:
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {file.name: file.read_bytes() for file in Path(folder).iterdir() if file.name in TOKENIZER_FILES}


def make_transformers_model(
    checkpoint: Checkpoint, layout: RepositoryLayout, to_torch: Callable[[LazyTensor], torch.Tensor]
) -> PreTrainedModel:
    """Make a live model of transformers, in inference mode: the class that a repository in this layout names.

    transformers' classes for heads on tokens have no pooler. If the checkpoint has one, the encoder gets it, frozen, so
    that it is not lost. It changes no output.

    Args:
        checkpoint: The checkpoint.
        layout: The layout, which decides the class.
        to_torch: Returns a weight as a tensor of torch.

    Raises:
        WeightsError: A value is NaN or infinite.
    """
    import torch

    config, spelling, head = repository_config(checkpoint, layout), SPELLINGS[layout], checkpoint.head
    model_class = _class(config["architectures"][0], layout)
    options = {} if head is not None else {"add_pooling_layer": checkpoint.has_pooler}
    with torch.device("meta"):  # no random weights are made only to be replaced
        model = model_class(model_class.config_class.from_dict(config), **options)
    if checkpoint.has_pooler:
        _add_pooler(model.base_model, layout)
    prefix = spelling.prefix if head is not None else ""
    names = {prefix + rule.name(spelling.dialect): rule for rule in checkpoint.encoder_rules}
    names |= {rule.name(spelling.dialect): rule for rule in checkpoint.head_rules}
    state = {name: to_torch(checkpoint.weights[rule.albert_hub]) for name, rule in names.items()}
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()  # it copies a tied bias
    for name, tensor in state.items():
        model.get_parameter(name).data = tensor
    _fill_buffers(model)
    if missing := [name for name, parameter in model.named_parameters() if parameter.is_meta]:
        raise ValueError(f"{checkpoint.folder} has no weights for {', '.join(missing)}.")
    return model.eval()


def _class(name: str, layout: RepositoryLayout) -> Any:
    if layout == "albert_hub":
        import albert_hub_bridge

        return getattr(albert_hub_bridge, name)
    import transformers

    return getattr(transformers, name)


def _add_pooler(encoder: Any, layout: RepositoryLayout) -> None:
    """Give an encoder its pooler, if its class has none."""
    from torch import nn

    name, _, _ = POOLER_RULES[0].name(SPELLINGS[layout].dialect).rpartition(".")
    if getattr(encoder, name) is not None:
        return
    size = encoder.config.hidden_size
    pooler = nn.Linear(size, size, device="meta").requires_grad_(False)  # its gradients would be zero
    setattr(encoder, name, pooler)
    if layout == "transformers":
        encoder.pooler_activation = nn.Tanh()


def _fill_buffers(model: Any) -> None:
    """Compute the buffers that are in no file, as transformers does when it loads a model."""
    import torch

    for module in model.modules():
        buffers = {name: buffer for name, buffer in module.named_buffers(recurse=False) if buffer.is_meta}
        for name, buffer in buffers.items():
            setattr(module, name, torch.empty_like(buffer, device="cpu"))
        if buffers:
            model._init_weights(module)


def make_transformers_tokenizer(checkpoint: Checkpoint, layout: RepositoryLayout) -> Any:
    """Make a live tokenizer of transformers, of the class that a repository in this layout names. None without one.

    Its files are temporary: transformers makes tokenizers from files only.
    """
    if not checkpoint.has_tokenizer:
        return None
    with TemporaryDirectory() as folder:
        write_tokenizer(checkpoint, Path(folder), layout)
        name = json.loads((Path(folder) / TOKENIZER_CONFIG).read_text(encoding="utf-8"))["tokenizer_class"]
        tokenizer = _class(name, layout).from_pretrained(folder)
    tokenizer.name_or_path = ""  # the folder is no more
    return tokenizer


def copied(weight: LazyTensor) -> torch.Tensor:
    """Return a weight as a tensor with memory of its own.

    Raises:
        WeightsError: A value is NaN or infinite.
    """
    return as_tensor(weight.read())


def shared(weight: LazyTensor) -> torch.Tensor:
    """Return a weight as a tensor with the memory of its values. It may be transposed.

    Raises:
        WeightsError: A value is NaN or infinite.
    """
    return as_tensor(weight.read(), share=True)
