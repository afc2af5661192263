"""Serialized Keras objects: which ones may be in a preset, and how they are read and written.

Keras imports the module that an object names. This package imports nothing: it compares the names with a list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.errors import ConfigurationError, Problem
from albert_hub_bridge.text import short_repr


# Class -> its module. AlbertClassifier and AlbertPreprocessor are names of keras-nlp.
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
# Other keys of an object. This package writes `labels` (see `task`), and older versions of Keras wrote the rest.
_OTHER_KEYS = {"config", "assets", "weights", "build_config", "labels"}

# The keys of an object. In a universal folder the rest of `config.json` is the repository's.
KEYS_OF_OBJECTS = frozenset(_MARKS | _OTHER_KEYS)

# Settings that make Keras read or decode other data than the preset's own files, with the values that do not.
_LITERAL = {"config_file": (None, "preprocessor.json", "tokenizer.json"), "proto": (None,)}


def check_objects(file: Path, content: dict[str, Any]) -> None:
    """Refuse a serialized object that is not ALBERT's, or that has such an object nested in it.

    Raises:
        ConfigurationError: An object has another class, module or registered name, or an unknown key, or a setting
            points to another file. All problems are listed.
    """
    problems = [problem for path, value in _objects(content, "") for problem in _wrong_object(path, value)]
    if problems:
        advice = "Nothing is imported by its name in a file. Save the preset with KerasHub, without other objects."
        raise ConfigurationError(file, "configuration", problems, advice)


def read_keras_config(source: SourceFolder, name: str, kind: str) -> dict[str, Any]:
    """Read the configuration of the object in a file.

    Args:
        source: The preset.
        name: The name of the file.
        kind: What the name of the object's class has to end with: "Tokenizer" or "Preprocessor".

    Raises:
        FileError, ConfigurationError: As `SourceFolder.json`, `check_objects` and `config_of`.
    """
    file, content = source.path(name), source.json(name)
    check_objects(file, content)
    return config_of(file, content, kind)


def config_of(file: Path, content: Any, kind: str, path: str = "") -> dict[str, Any]:
    """Return the configuration of an object that `check_objects` accepted.

    Args:
        file: The file of the object, for the message.
        content: The object.
        kind: What the name of its class has to end with.
        path: The place of the object in the file.

    Raises:
        ConfigurationError: The object has another class, or no configuration, or is not an object.
    """
    name = content.get("class_name") if isinstance(content, dict) else None
    if not isinstance(name, str) or not name.endswith(kind):
        found = short_repr(name if isinstance(content, dict) else content)
        detail = f"expected the {kind.lower()} of an ALBERT, found {found}"
        raise ConfigurationError(file, "configuration", [Problem("unsupported object", path or "class_name", detail)])
    config = content.get("config")
    if not isinstance(config, dict):
        found = "none" if config is None else type(config).__name__
        problem = Problem("missing key", _at(path, "config"), f"expected an object, found {found}")
        raise ConfigurationError(file, "configuration", [problem])
    return config


def _objects(value: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every JSON object with its path. `strict_json` limits the levels of nesting."""
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
        yield Problem("unsupported object", path or "class_name", detail)
    for key, inner in value.items():
        if key not in _MARKS | _OTHER_KEYS:
            yield Problem("unknown key", _at(path, key), f"expected a known key, found {short_repr(inner)}")


def _at(path: str, key: str) -> str:
    """Return the path of a key. A long key is cut, because the path of each of its children repeats it."""
    return f"{path}.{key[:80]}" if path else key[:80]


def serialized(class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return an object of KerasHub's ALBERT in Keras's serialized form."""
    return {
        "module": f"keras_hub.src.models.albert.{MODULES[class_name]}",
        "class_name": class_name,
        "config": config,
        "registered_name": f"keras_hub>{class_name}",
    }


def policy(name: str) -> dict[str, Any]:
    """Return a dtype policy in Keras's serialized form."""
    return {"module": "keras", "class_name": "DTypePolicy", "config": {"name": name}, "registered_name": None}
