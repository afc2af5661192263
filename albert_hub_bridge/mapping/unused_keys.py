"""Keys of a repository's `config.json` that ALBERT does not use, and what becomes of them.

Libraries and users write many keys that no ALBERT reads. They change nothing, so they are no reason to refuse a model.
Repositories keep them. A key that names another computation stays unknown, and is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from albert_hub_bridge.mapping.configs import (
    ALBERT,
    ALBERT_HUB,
    NAMES_CODE,
    NOT_USED,
    ONLY_INITIALIZES,
    POSITIVE,
    SET_BY_TRANSFORMERS,
    Ignored,
    IgnoredKey,
    Table,
)


# Keys of other encoders, and of parts and files that transformers would load. With one of them set, the model is not
# the ALBERT that the other keys describe.
_STRUCTURES = re.compile(
    r"(.*_)?(rotary|rope|alibi|relative_(attention|position).*|moe|num_(local_)?experts)(_.*)?"
    r"|layer_types|mtp_layer_types|sliding_window|attention_window|compression_config|transformers_weights"
    r"|text_config|text_encoder|decoder|generator"
)
# The class that sentence-transformers' CrossEncoder imports and calls on the scores. Since version 4 the first of these
# keys has it.
_CROSS_ENCODER, _OLD_CROSS_ENCODER = "sentence_transformers", "sbert_ce_default_activation_function"
_TORCH_CLASS = re.compile(r"torch\.nn\.(modules\.[a-z]+\.)?[A-Za-z]+")
_USED_BY_CROSS_ENCODER = "the activation of sentence-transformers' CrossEncoder"
_KEPT = frozenset({NOT_USED, ONLY_INITIALIZES, _USED_BY_CROSS_ENCODER})


def with_unused_keys(table: Table, keys: Mapping[str, Any]) -> Table:
    """Return a table of `config.json` with a row for each key that ALBERT does not use.

    Args:
        table: The table of the layout.
        keys: The content of the file.
    """
    # In albert_hub, names of transformers are other names of KerasHub's arguments.
    known = table.keys() | (ALBERT.keys() if table is ALBERT_HUB else set())
    unused = {key: value for key, value in keys.items() if key not in known}
    rows = {
        key: Ignored(_reason(key, value))
        for key, value in unused.items()
        if not (value and _STRUCTURES.fullmatch(key))  # a switch that is off changes nothing
    }
    return {**table, **rows}


def kept_keys(ignored: Iterable[IgnoredKey], table: Table) -> dict[str, Any]:
    """Return the keys that a repository keeps, of those that its source has and ALBERT does not use.

    Args:
        ignored: The ignored keys of the source.
        table: The table of the target's layout.
    """
    tables = (ALBERT, ALBERT_HUB) if table is ALBERT_HUB else (table,)
    taken = {key for each in tables for key, rule in each.items() if not isinstance(rule, Ignored)}
    return {
        each.key: each.value
        for each in ignored
        if each.reason in _KEPT
        and each.key not in taken
        and (each.reason != ONLY_INITIALIZES or POSITIVE.accepts(each.value))
    }


def _reason(key: str, value: Any) -> str:
    if key in (_CROSS_ENCODER, _OLD_CROSS_ENCODER):
        activation = value.get("activation_fn", "torch.nn.Identity") if isinstance(value, dict) else value
        is_torch = isinstance(activation, str) and _TORCH_CLASS.fullmatch(activation) is not None
        return _USED_BY_CROSS_ENCODER if is_torch else NAMES_CODE
    if key.startswith("_") or key in ("name_or_path", "use_return_dict"):
        return SET_BY_TRANSFORMERS
    return NOT_USED
