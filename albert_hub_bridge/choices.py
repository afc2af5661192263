"""Choose one of several names: in any case, by another name of it, with a suggestion for a misspelled one.

The names that options take are here, because `--help` shows them and needs nothing else of the package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Literal, TypeVar


Choice = TypeVar("Choice")

# The layouts that are written, and those that are read.
LayoutName = Literal["keras", "albert_hub", "transformers", "universal"]
SourceLayoutName = Literal["keras", "albert_hub", "transformers", "universal", "google"]
AdapterLayout = Literal["keras", "albert_hub", "transformers"]  # KerasHub's and PEFT's adapters share no folder
# Folders that KerasHub loads, with KerasHub's limits.
PRESET_LAYOUTS: tuple[SourceLayoutName, ...] = ("keras", "universal")
# Folders that transformers loads without this package, and all that it loads.
TRANSFORMERS_LAYOUTS: tuple[SourceLayoutName, ...] = ("transformers", "universal")
REPOSITORY_LAYOUTS: tuple[SourceLayoutName, ...] = ("albert_hub", *TRANSFORMERS_LAYOUTS)

# Of `convert`.
Normalize = Literal["keep", "none", "uncased"]
Dtype = Literal["float32", "bfloat16", "float16", "int8"]
Quantize = Literal["int8"]
Pooling = Literal["mean", "cls"]  # of sentence-transformers: how the states of tokens become one vector
HiddenAct = Literal["gelu_pytorch_tanh", "gelu_new"]  # names of the same function in transformers

# Of `embed`.
PoolingMode = Literal["mean", "cls", "pooler", "none"]
ComputeDtype = Literal["float32", "bfloat16", "float16"]
OutputDtype = Literal["float32", "float16"]
Device = Literal["auto", "cpu", "cuda"]
Engine = Literal["local", "ray"]
DEFAULT_PART_ROWS = 16_384

# Of `verify`: `python -m benchmarks.rounding`, and docs/verification.md.
DEFAULT_TOLERANCE = 2e-6

# Other names of dtypes.
DTYPE_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def choose(what: str, value: object, choices: Sequence[Choice], other_names: Mapping[str, str] | None = None) -> Choice:
    """Return the choice that a value names.

    Args:
        what: What is chosen, for the error message: the name of an argument.
        value: One of the choices; or its name in any case, with `-` for `_`; or another name of it.
        choices: The choices.
        other_names: Names of choices by their other names, in lower case.

    Raises:
        ValueError: It names none of them.
    """
    by_name = {str(choice): choice for choice in choices}
    name = str(value).casefold().replace("-", "_") if isinstance(value, str) else str(value)
    name = (other_names or {}).get(name, name)
    if name in by_name and isinstance(value, str) is isinstance(by_name[name], str):  # "None" is not None
        return by_name[name]
    meant = {**{name: name for name in by_name}, **{n: m for n, m in (other_names or {}).items() if m in by_name}}
    raise ValueError(f"{what} must be one of {', '.join(by_name)}, not {value!r}.{did_you_mean(name, meant)}")


def did_you_mean(text: str, meant: Mapping[str, str]) -> str:
    """Return " Did you mean X?" for the name that is most like a text, or an empty text if none is like it.

    Args:
        text: As the user wrote it.
        meant: What to suggest, by name.
    """
    found = get_close_matches(text, meant, 1)
    return f" Did you mean {meant[found[0]]}?" if found else ""
