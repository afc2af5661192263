"""Copy the tensors of a pickle into a safetensors file."""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from typing import Any

import torch
from safetensors.torch import save_file

from .program import decode_path


torch.set_num_threads(1)
warnings.simplefilter("ignore")  # about how the tensors were pickled: only the tensors count


def read(file: str, job: dict[str, Any]) -> dict[str, Any]:
    """Unpickle tensors, and write them to the file `job["target"]`.

    Raises:
        ValueError: The pickle has something other than a table of strided tensors, or they are larger than the file
            allows, or two have the same name.
    """
    size = os.path.getsize(file)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:  # torch's message goes on with how to run the pickle anyway
        name = re.search(r"GLOBAL (\S+)|Unsupported (?:class|operand) (\S+)", str(error))
        raise ValueError(f"a pickle that needs {name[0] if name else 'more than tensors'}") from error
    if not isinstance(content, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in content.values()):
        raise ValueError("something other than a dictionary of tensors")
    if odd := [str(name) for name, tensor in content.items() if tensor.layout != torch.strided or tensor.is_meta]:
        raise ValueError(f"sparse tensors, or tensors without values: {', '.join(odd[:5])}")
    if huge := [str(name) for name, tensor in content.items() if tensor.numel() * tensor.element_size() > 2 * size]:
        raise ValueError(f"tensors that are larger than the file: {', '.join(huge[:5])}")
    if len({str(name) for name in content}) < len(content):
        raise ValueError("two tensors of the same name")
    # Several tensors may share one memory, which safetensors does not support.
    tensors = {str(name): tensor.detach().clone().contiguous() for name, tensor in content.items()}
    save_file(tensors, decode_path(job["target"]))
    return {}
