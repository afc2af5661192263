"""Objects as Keras serializes them: which may be in a preset, and the files that have them.

Keras imports whatever module an object names and calls what it finds there; here a name is only compared with a list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from albert_hub_bridge.disk.json_files import read_json
from albert_hub_bridge.errors import ConfigurationError, Problem
from albert_hub_bridge.text import short_repr


# Class -> the module that has it. AlbertClassifier and AlbertPreprocessor are keras-nlp's names of before.
# fmt: off
MODULES: Mapping[str, str] = {
    "AlbertBackbone":                   "albert_backbone",
    "AlbertTokenizer":                  "albert_tokenizer",
    "AlbertMaskedLM":                   "albert_masked_lm",
    "AlbertMaskedLMPreprocessor":       "albert_masked_lm_preprocessor",
    "AlbertTextClassifier":             "albert_text_classifier",
    "AlbertTextClassifierPreprocessor": "albert_text_classifier_preprocessor",
    "AlbertClassifier":                 "albert_classifier",
    "AlbertPreprocessor":               "albert_preprocessor",
}
_OF_KERAS = {
    ("keras",                "DTypePolicy",          None),
    ("keras.dtype_policies", "DTypePolicy",          None),
    ("keras.dtype_policies", "DTypePolicyMap",       None),
    ("keras.dtype_policies", "QuantizedDTypePolicy", None),
    ("builtins",             "function",             "function"),
}
# fmt: on
_KNOWN = _OF_KERAS | {
    (f"{package}.src.models.albert.{module}", name, f"{package}>{name}")
    for package in ("keras_hub", "keras_nlp")
    for name, module in MODULES.items()
}
_MARKS = {"module", "class_name", "registered_name"}
# What stands beside the marks; `labels` is ours (`keras_task`), and the rest what older versions of Keras wrote.
_BESIDE = {"config", "assets", "weights", "build_config", "labels"}

# Settings that make Keras read, or decode, something else than the preset's own files.
_LITERAL = {"config_file": (None, "preprocessor.json", "tokenizer.json"), "proto": (None,)}


def check_objects(file: Path, content: dict[str, Any]) -> None:
    """See that a serialized object and all that is nested in it are ALBERT's.

    Raises:
        ConfigurationError: An object of another class, module or registered name is in it, or one with a key that
            nobody knows, or a setting points to another file. All are listed.
    """
    problems = [problem for path, value in _objects(content, "") for problem in _wrong_object(path, value)]
    if problems:
        advice = "Nothing is imported by its name in a file. Have KerasHub save the preset without objects of others."
        raise ConfigurationError(file, "configuration", problems, advice)


def read_keras_config(file: Path, kind: str) -> dict[str, Any]:
    """Read the configuration of the object that a file has.

    Args:
        file: To read.
        kind: With which the name of the object's class has to end: "Tokenizer", ...

    Raises:
        FileError, ConfigurationError: As `read_json`, `check_objects` and `config_of`.
    """
    content = read_json(file)
    check_objects(file, content)
    return config_of(file, content, kind)


def config_of(file: Path, content: Any, kind: str, path: str = "") -> dict[str, Any]:
    """Return the configuration of an object that `check_objects` has seen.

    Args:
        file: That has it, for the message.
        content: The object.
        kind: With which the name of its class has to end.
        path: Of the object in the file.

    Raises:
        ConfigurationError: It is of another class, or is none, or has no configuration.
    """
    name = content.get("class_name") if isinstance(content, dict) else None
    if not isinstance(name, str) or not name.endswith(kind):
        detail = f"expected the {kind.lower()} of an ALBERT, found {short_repr(name if isinstance(content, dict) else content)}"
        raise ConfigurationError(file, "configuration", [Problem("refused object", path or "class_name", detail)])
    config = content.get("config")
    if not isinstance(config, dict):
        found = "none" if config is None else type(config).__name__
        problem = Problem("missing key", _at(path, "config"), f"expected an object, found {found}")
        raise ConfigurationError(file, "configuration", [problem])
    return config


def _objects(value: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every JSON object with its path; `read_json` has seen to it that they do not nest deep."""
    if isinstance(value, dict):
        yield path, value
        for key, inner in value.items():
            yield from _objects(inner, _at(path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _objects(inner, f"{path}[{index}]")


def _wrong_object(path: str, value: dict[str, Any]) -> Iterator[Problem]:
    for key, allowed in _LITERAL.items():
        if value.get(key) not in allowed:
            expected = " or ".join(repr(each) for each in allowed)
            yield Problem("unsupported value", _at(path, key), f"expected {expected}, found {short_repr(value[key])}")
    if not _MARKS & set(value):
        return
    triple = (value.get("module"), value.get("class_name"), value.get("registered_name"))
    if not all(each is None or isinstance(each, str) for each in triple) or triple not in _KNOWN:
        detail = (
            f"expected one of KerasHub's ALBERT or of Keras' dtype policies, found {' '.join(map(short_repr, triple))}"
        )
        yield Problem("refused object", path or "class_name", detail)
    for key, inner in value.items():
        if key not in _MARKS | _BESIDE:
            yield Problem("unknown key", _at(path, key), f"expected a key that is known, found {short_repr(inner)}")


def _at(path: str, key: str) -> str:
    """Name a key; a long one is cut, because each of its children has it in its own path."""
    return f"{path}.{key[:80]}" if path else key[:80]


def serialized(class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    """Lay out an object of KerasHub's ALBERT as Keras serializes it."""
    return {
        "module": f"keras_hub.src.models.albert.{MODULES[class_name]}",
        "class_name": class_name,
        "config": config,
        "registered_name": f"keras_hub>{class_name}",
    }
