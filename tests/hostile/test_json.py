"""Wrong JSON in every file of a source: its syntax and its content."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.conftest import Refused, expect
from tests.hostile.valid import edit, in_bytes


def _inserted(text: str) -> Callable[[bytes], bytes]:
    """Put a key before all others."""
    return lambda content: content.replace(b"{", b"{" + text.encode() + b",", 1)


def _twice(content: bytes) -> bytes:
    key, value = next(iter(json.loads(content).items()))
    return _inserted(f"{json.dumps(key)}: {json.dumps(value)}")(content)


SYNTAX: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda c: c[: len(c) // 2],
    "one bracket": lambda c: b"{",
    "text after its end": lambda c: c + b"{}",
    "a zero after its end": lambda c: c + b"\0",
    "a list": lambda c: b"[" + c + b"]",
    "a text": lambda c: b'"x"',
    "a number": lambda c: b"7",
    "null": lambda c: b"null",
    "white space": lambda c: b" \n",
    "no UTF-8": lambda c: c.replace(b"{", b'{"x": "\xff",', 1),
    "an overlong character": lambda c: c.replace(b"{", b'{"x": "\xc0\xaf",', 1),
    "UTF-16": lambda c: c.decode().encode("utf-16"),
    "UTF-32": lambda c: c.decode().encode("utf-32-le"),
    "a byte order mark": lambda c: b"\xef\xbb\xbf" + c,
    "half a character": _inserted(r'"x": "\ud800"'),
    "half a character in a key": _inserted(r'"\udfff": 1'),
    "a key twice": _twice,
    "a nested key twice": _inserted('"x": [{"a": 1, "a": 2}]'),
    "NaN": _inserted('"x": NaN'),
    "minus infinity": _inserted('"x": [-Infinity]'),
    "a number that is infinite": _inserted('"x": 1e999'),
    "a number of 5000 digits": _inserted('"x": ' + "9" * 5000),
    "1000 levels of lists": _inserted('"x": ' + "[" * 1000 + "]" * 1000),
    "40 levels of objects": _inserted('"x": ' + '{"a":' * 40 + "1" + "}" * 40),
    "100,000 levels": lambda c: b'{"x":' + b"[" * 100_000,
    "a comment": lambda c: b"// hello\n" + c,
    "a comma too many": lambda c: c.rstrip()[:-1] + b",}",
    "single quotes": lambda c: c.replace(b'"', b"'"),
    "millions of values": _inserted('"x": [' + "0," * 1_100_000 + "0]"),
    "a text of 40 MB": lambda c: b'{"x": "' + b"a" * 40_000_000 + b'"}',
}
SETTINGS = (
    ("task", "config.json"),
    ("task", "task.json"),
    ("text", "tokenizer.json"),
    ("peft_adapter", "adapter_config.json"),
)


@pytest.mark.parametrize("what", SYNTAX)
@pytest.mark.parametrize(("layout", "name"), SETTINGS)
def test_syntax(what: str, layout: str, name: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source(layout)
    in_bytes(name, SYNTAX[what])(folder)
    expect(refused(folder), name)


def _config(**changes: Any) -> Callable[[Any], object]:
    return lambda c: c["config"].update(changes)


EVIL = {"module": "hostile_module", "class_name": "Run", "config": {"x": 1}, "registered_name": "hostile_module>Run"}
LAMBDA = {"module": "builtins", "class_name": "__lambda__", "config": {"code": "4wA="}, "registered_name": "function"}

NUMBERS = (
    "vocabulary_size",
    "num_layers",
    "num_heads",
    "embedding_dim",
    "hidden_dim",
    "intermediate_dim",
    "num_groups",
)
PRESET: dict[str, Callable[[Any], object]] = {
    "another module": lambda c: c.update(module="hostile_module"),
    "a module of another package": lambda c: c.update(module="keras_hub.src.models.bert.albert_backbone"),
    "a module that is a list": lambda c: c.update(module=["keras_hub"]),
    "no module": lambda c: c.pop("module"),
    "another class": lambda c: c.update(class_name="Functional"),
    "a class that is an object": lambda c: c.update(class_name={"a": 1}),
    "another registered name": lambda c: c.update(registered_name="hostile_module>AlbertBackbone"),
    "a registered name of another class": lambda c: c.update(registered_name="keras_hub>AlbertTokenizer"),
    "one key more": lambda c: c.update(hostile_module="import hostile_module"),
    "a class name of megabytes": lambda c: c.update(class_name="x" * 3_000_000),
    "a build configuration with an object": lambda c: c.update(build_config={"input": EVIL}),
    "no configuration": lambda c: c.pop("config"),
    "a configuration that is a list": lambda c: c.update(config=[]),
    "a name that is an object": _config(name=EVIL),
    "a name that is a function": _config(name=LAMBDA),
    "a policy that is an object": _config(dtype=EVIL),
    "a policy of another module": _config(
        dtype={"module": "hostile_module", "class_name": "DTypePolicy", "config": {"name": "float32"}}
    ),
    "a policy with an object in it": _config(
        dtype={"module": "keras", "class_name": "DTypePolicy", "config": {"name": EVIL}, "registered_name": None}
    ),
    "a policy that is a number": _config(dtype=32),
    "a policy of 4 bits": _config(dtype={"class_name": "QuantizedDTypePolicy", "config": {"mode": "int4"}}),
    "an unknown key": _config(rotary=True),
    "a file of configuration elsewhere": _config(config_file="../../etc/passwd"),
    "a vocabulary within": _config(proto="AAAA"),
    **{f"a petabyte of {name}": _config(**{name: 1 << 50}) for name in NUMBERS},
    **{
        f"{value!r} {name}": _config(**{name: value}) for name in NUMBERS[:3] for value in (0, -1, 2.0, "2", True, None)
    },
    "one layer more": _config(num_layers=4000, num_groups=4000),
    "heads that do not divide": _config(num_heads=3),
    "groups that do not divide": _config(num_layers=3),
    "more inner layers": _config(num_inner_repetitions=2),
    "fewer groups": _config(num_groups=1),
    "more heads": _config(num_heads=4),
    "fewer pieces": _config(vocabulary_size=89),
    "a dropout of 1": _config(dropout=1),
    "a dropout below 0": _config(dropout=-0.5),
    "no segments": _config(num_segments=0),
    "endless positions": _config(max_sequence_length=1 << 40),
}


@pytest.mark.parametrize("what", PRESET)
def test_configurations_of_presets(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("preset")
    edit("config.json", PRESET[what])(folder)
    expect(refused(folder), "preset" if "pieces" in what else "")


def _tokenizer(c: Any) -> Any:
    return c["config"]["preprocessor"]["config"]["tokenizer"]


def _backbone(**changes: Any) -> Callable[[Any], object]:
    return lambda c: c["config"]["backbone"]["config"].update(changes)


TASK: dict[str, Callable[[Any], object]] = {
    "another module": lambda c: c.update(module="hostile_module"),
    "another registered name": lambda c: c.update(registered_name="hostile_module>AlbertTextClassifier"),
    "another task": lambda c: c.update(class_name="AlbertTokenClassifier"),
    "a masked LM": lambda c: c.update(
        class_name="AlbertMaskedLM",
        module="keras_hub.src.models.albert.albert_masked_lm",
        registered_name="keras_hub>AlbertMaskedLM",
    ),
    "no backbone": lambda c: c["config"].pop("backbone"),
    "a backbone that is an object": lambda c: c["config"].update(backbone=EVIL),
    "a backbone that is a tokenizer": lambda c: c["config"].update(
        backbone=c["config"]["preprocessor"]["config"]["tokenizer"]
    ),
    "a backbone of another module": lambda c: c["config"]["backbone"].update(module="hostile_module"),
    "a wider backbone": _backbone(hidden_dim=16),
    "a deeper backbone": _backbone(num_layers=4),
    "another dropout": _backbone(dropout=0.5),
    "true inner layers in the backbone": _backbone(num_inner_repetitions=True),
    "2.0 layers in the backbone": _backbone(num_layers=2.0),
    "an unknown key in the backbone": _backbone(rotary=1),
    "a preprocessor that is an object": lambda c: c["config"].update(preprocessor=EVIL),
    "a preprocessor that is a number": lambda c: c["config"].update(preprocessor=5),
    "a preprocessor that is a backbone": lambda c: c["config"].update(preprocessor=c["config"]["backbone"]),
    "a tokenizer that is an object": lambda c: c["config"]["preprocessor"]["config"].update(tokenizer=EVIL),
    "a tokenizer of another file": lambda c: c["config"]["preprocessor"]["config"]["tokenizer"]["config"].update(
        config_file="/etc/passwd"
    ),
    "a tokenizer with a vocabulary": lambda c: c["config"]["preprocessor"]["config"]["tokenizer"]["config"].update(
        proto="AAAA"
    ),
    "a tokenizer that adds pieces": lambda c: _tokenizer(c)["config"].update(add_bos=True),
    "another sequence length": lambda c: c["config"]["preprocessor"]["config"].update(sequence_length=7),
    "an activation that is an object": lambda c: c["config"].update(activation=EVIL),
    "an activation that is a function": lambda c: c["config"].update(activation=LAMBDA),
    "an unsupported activation": lambda c: c["config"].update(activation="relu"),
    "more classes": lambda c: c["config"].update(num_classes=4),
    "a billion classes": lambda c: c["config"].update(num_classes=10**9),
    "half a class": lambda c: c["config"].update(num_classes=0.5),
    "labels of another number": lambda c: c.update(labels=["a"]),
    "labels that are numbers": lambda c: c.update(labels=[1, 2, 3]),
    "an unknown setting": lambda c: c["config"].update(mystery=1),
    "an object somewhere": lambda c: c["config"]["preprocessor"]["config"].update(name=EVIL),
}


@pytest.mark.parametrize("what", TASK)
def test_tasks(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("task")
    edit("task.json", TASK[what])(folder)
    expect(refused(folder), ["task." if "sequence" not in what else "preprocessor.json"])


def _without_class(c: Any) -> None:
    for key in ("module", "class_name", "registered_name"):
        del c[key]


TEXT: dict[str, tuple[str, Callable[[Any], object]]] = {
    "a tokenizer of another file": ("tokenizer.json", _config(config_file="../../secret.json")),
    "a tokenizer with a vocabulary": ("tokenizer.json", _config(proto="Cg4KBTxwYWQ+")),
    "a tokenizer that adds pieces": ("tokenizer.json", _config(add_bos=True)),
    "a tokenizer that packs": ("tokenizer.json", _config(sequence_length=8)),
    "a tokenizer of another module": ("tokenizer.json", lambda c: c.update(module="hostile_module")),
    "a tokenizer of another class": ("tokenizer.json", lambda c: c.update(class_name="BertTokenizer")),
    "a tokenizer with an object": ("tokenizer.json", _config(name=EVIL)),
    "a tokenizer with assets elsewhere": ("tokenizer.json", lambda c: c.update(asset="/etc")),
    "a tokenizer of no class": ("tokenizer.json", _without_class),
    "a preprocessor of no class": ("preprocessor.json", _without_class),
    "a preprocessor that is a tokenizer": ("preprocessor.json", lambda c: c.update(c["config"]["tokenizer"])),
    "a preprocessor with a tokenizer that adds pieces": (
        "preprocessor.json",
        lambda c: c["config"]["tokenizer"]["config"].update(add_eos=True),
    ),
    "a preprocessor of another file": ("preprocessor.json", _config(config_file="preprocessor.json/../x")),
    "a preprocessor of another module": ("preprocessor.json", lambda c: c.update(module="hostile_module")),
    "a preprocessor with an object": ("preprocessor.json", _config(tokenizer=EVIL)),
    "a preprocessor that cuts otherwise": ("preprocessor.json", _config(truncate="never")),
    "a preprocessor without length": ("preprocessor.json", _config(sequence_length=0)),
    "a preprocessor with half a length": ("preprocessor.json", _config(sequence_length=1.5)),
    "a preprocessor with an unknown setting": ("preprocessor.json", _config(mystery=1)),
}


@pytest.mark.parametrize("what", TEXT)
def test_tokenizers_and_preprocessors(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("task")
    name, change = TEXT[what]
    edit(name, change)(folder)
    expect(refused(folder), name)


def _set(**changes: Any) -> Callable[[Any], object]:
    return lambda c: c.update(changes)


REPOSITORY: dict[str, Callable[[Any], object]] = {
    "another model": _set(model_type="bert"),
    "a model that is a list": _set(model_type=["albert"]),
    "an unknown setting": _set(rotary=True),
    "a decoder": _set(is_decoder=True),
    "quantization": _set(quantization_config={"quant_method": "hostile_module"}),
    "pruned heads": _set(pruned_heads={"0": [1]}),
    "relative positions": _set(position_embedding_type="relative_key"),
    "an activation that is code": _set(hidden_act="hostile_module.run"),
    "an epsilon of 0": _set(layer_norm_eps=0),
    "a head without weights": _set(architectures=["AlbertForSequenceClassification"]),
    "a class that is not in a list": _set(architectures="AlbertForMaskedLM"),
    "classes that are numbers": _set(architectures=[7]),
    "a wider model": _set(hidden_size=16),
    "a billion layers": _set(num_hidden_layers=10**9),
    "a billion pieces": _set(vocab_size=10**9),
    "another number of pieces": _set(vocab_size=91),
    "heads that do not divide": _set(num_attention_heads=3),
    "a width that is a text": _set(hidden_size="8"),
    "a width that is true": _set(hidden_size=True),
    "a pipeline of its own": _set(custom_pipelines={"x": {"impl": "hostile_module.Run"}}),
}


@pytest.mark.parametrize("what", REPOSITORY)
def test_configurations_of_repositories(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("transformers")
    edit("config.json", REPOSITORY[what])(folder)
    expect(refused(folder), ["config.json"] if "pieces" not in what and "wider" not in what else "")


LABELS: dict[str, Callable[[Any], object]] = {
    "a billion labels": _set(num_labels=10**9),
    "no labels": _set(id2label={}),
    "no labels at all": lambda c: (c.pop("id2label"), c.update(num_labels=0)),
    "fewer than no labels": _set(num_labels=-1),
    "labels that are no object": _set(id2label=["a"]),
    "labels that are not counted": _set(id2label={"0": "a", "7": "b"}),
    "labels that are objects": _set(id2label={"0": EVIL, "1": "b"}),
    "labels of another number": _set(id2label={"0": "a", "1": "b"}, num_labels=3),
    "fewer labels": _set(id2label={"0": "a", "1": "b"}),
}


@pytest.mark.parametrize("what", LABELS)
def test_labels(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("albert_hub")
    edit("config.json", LABELS[what])(folder)
    refused(folder)


TOKENIZERS: dict[str, tuple[str, Callable[[Any], object]]] = {
    "another unknown piece": ("tokenizer_config.json", _set(unk_token="[UNK]")),
    "a mask that is an object": ("tokenizer_config.json", _set(mask_token={"content": {"a": 1}})),
    "rules that are texts": ("tokenizer_config.json", _set(do_lower_case="false")),
    "a length below 0": ("tokenizer_config.json", _set(model_max_length=-1)),
    "accents that are kept and stripped": ("tokenizer_config.json", _set(keep_accents=True, strip_accents=True)),
    "another way to cut": ("tokenizer_config.json", _set(truncate="hostile_module")),
    "another model": ("tokenizer.json", lambda c: c["model"].update(type="BPE")),
    "no model": ("tokenizer.json", lambda c: c.pop("model")),
    "a model that is a list": ("tokenizer.json", _set(model=[])),
    "pieces that are numbers": ("tokenizer.json", lambda c: c["model"].update(vocab=[1, 2])),
    "scores that are texts": ("tokenizer.json", lambda c: c["model"].update(vocab=[["a", "b"]])),
    "a score that is no float": ("tokenizer.json", lambda c: c["model"]["vocab"].append(["x", 10**400])),
    "no unknown piece": ("tokenizer.json", lambda c: c["model"].update(unk_id=None)),
    "an unknown piece that is not there": ("tokenizer.json", lambda c: c["model"].update(unk_id=10**6)),
    "an unknown piece below 0": ("tokenizer.json", lambda c: c["model"].update(unk_id=-1)),
    "more pieces than rows": (
        "tokenizer.json",
        lambda c: c["model"]["vocab"].extend([f"p{n}", -9.0] for n in range(99)),
    ),
    "an unknown key": ("tokenizer.json", _set(hostile_module=1)),
    "an unknown normalizer": ("tokenizer.json", _set(normalizer={"type": "hostile_module"})),
    "a normalizer that backtracks": (
        "tokenizer.json",
        _set(normalizer={"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}),
    ),
    "a map of characters that is damaged": (
        "tokenizer.json",
        _set(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    ),
    "a token that was added": ("added_tokens.json", _set(hostile_module=80)),
    "a token that was moved": ("added_tokens.json", _set(**{"[MASK]": 5})),
    "an id that is a text": ("added_tokens.json", _set(**{"[MASK]": "4"})),
    "a token added elsewhere": ("tokenizer_config.json", _set(added_tokens_decoder={"80": {"content": "hostile"}})),
    "a token moved elsewhere": ("tokenizer_config.json", _set(added_tokens_decoder={"5": {"content": "[MASK]"}})),
    "a token twice": ("tokenizer_config.json", _set(added_tokens_decoder={"4": "[MASK]", "5": "[MASK]"})),
    "tokens that are a list": ("tokenizer_config.json", _set(added_tokens_decoder=["[MASK]"])),
    "a special token more": ("tokenizer_config.json", _set(additional_special_tokens=["hostile"])),
    "a special token with a name": ("tokenizer_config.json", _set(extra_special_tokens={"a": "hostile"})),
    "special tokens that are numbers": ("tokenizer_config.json", _set(additional_special_tokens=7)),
    "another beginning": ("tokenizer_config.json", _set(bos_token="hostile")),
    "another mask in another file": ("special_tokens_map.json", _set(mask_token="[CLS]")),
    "a special token in another file": ("special_tokens_map.json", _set(additional_special_tokens=["hostile"])),
    "added tokens that are numbers": ("tokenizer.json", _set(added_tokens=[7])),
    "added tokens that the vocabulary lacks": (
        "tokenizer.json",
        lambda c: c["added_tokens"].append({**c["added_tokens"][0], "id": 80, "content": "hostile_module"}),
    ),
}


@pytest.mark.parametrize("what", TOKENIZERS)
def test_tokenizers_of_repositories(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("text")
    name, change = TOKENIZERS[what]
    edit(name, change)(folder)
    expect(refused(folder), name)


BESIDE: dict[str, Callable[[Any], object]] = {
    "another piece": lambda c: c["model"]["vocab"].__setitem__(10, ["hostile", -1.0]),
    "two pieces exchanged": lambda c: c["model"]["vocab"].insert(10, c["model"]["vocab"].pop(20)),
    "a piece less": lambda c: c["model"]["vocab"].pop(),
    "a piece more": lambda c: c["model"]["vocab"].append(["hostile", -1.0]),
    "a piece beyond": lambda c: c["added_tokens"].append({**c["added_tokens"][0], "id": 90, "content": "hostile"}),
    "another model": lambda c: c["model"].update(type="WordPiece"),
    "no model": lambda c: c.pop("model"),
    "nothing": lambda c: c.clear(),
    "pieces that are no list": lambda c: c["model"].update(vocab={"a": 0}),
    "added tokens that are no list": lambda c: c.update(added_tokens={"a": 0}),
}


@pytest.mark.parametrize("what", BESIDE)
def test_a_tokenizer_of_another_model(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    """transformers would take its pieces from this file, and KerasHub from the SentencePiece model."""
    folder = source("albert_hub")
    assert (folder / "spiece.model").is_file()
    edit("tokenizer.json", BESIDE[what])(folder)
    expect(refused(folder), "tokenizer.json")


ADAPTERS: dict[str, Callable[[Any], object]] = {
    "another kind": _set(peft_type="hostile_module"),
    "no kind": lambda c: c.pop("peft_type"),
    "DoRA": _set(use_dora=True),
    "biases": _set(bias="all"),
    "an unknown setting": _set(hostile_module=1),
    "a rank of 0": _set(r=0),
    "a rank of a billion": _set(r=10**9),
    "a rank that is a text": _set(r="4"),
    "an alpha that is a list": _set(lora_alpha=[1]),
    "an alpha that is no float": _set(lora_alpha=10**400),
    "an alpha of a layer that is no float": _set(alpha_pattern={"query": 10**400}),
    "an alpha that no adapter has": _set(lora_alpha=1e39),
    "patterns that are a list": _set(rank_pattern=["a"]),
    "a pattern that backtracks": _set(rank_pattern={"(a+)+$": 4}),
    "a pattern that backtracks without groups": _set(alpha_pattern={".*" * 30 + "x": 4.0}),
    "a pattern that does not parse": _set(rank_pattern={"[": 4}),
    "a pattern of a megabyte": _set(rank_pattern={"a" * 1_000_000: 4}),
    "a rank of a layer that is a text": _set(rank_pattern={"query": "4"}),
    "too many patterns": _set(rank_pattern={f"query{n}": 4 for n in range(150_000)}),
    "initialization from elsewhere": _set(init_lora_weights="pissa"),
}


@pytest.mark.parametrize("what", ADAPTERS)
def test_configurations_of_adapters(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("peft_adapter")
    edit("adapter_config.json", ADAPTERS[what])(folder)
    refused(folder)


RECORDS: dict[str, Any] = {
    "empty": {},
    "numbers": {"tool": 1, "source": 2, "target": 3},
    "no files": {"tool": "x", "source": {"handle": "x"}, "target": {"layout": "transformers"}},
    "files that are a list": {
        "tool": "x",
        "source": {"handle": "x"},
        "target": {"layout": "transformers", "files": []},
    },
}


@pytest.mark.parametrize("what", RECORDS)
def test_invented_records(what: str, source: Callable[[str], Path]) -> None:
    from albert_hub_bridge import inspect
    from albert_hub_bridge.errors import ConfigurationError

    folder = source("transformers")
    (folder / "conversion.json").write_text(json.dumps(RECORDS[what]))
    with pytest.raises(ConfigurationError, match=r"(?s)in the record of .*expected .*found"):
        inspect(folder)


def test_code_that_a_source_names_is_dropped(source: Callable[[str], Path], tmp_path: Path) -> None:
    from albert_hub_bridge import convert

    folder = source("transformers")
    edit("config.json", _set(auto_map={"AutoModel": "hostile_module.Run"}))(folder)
    (folder / "hostile_module.py").write_text("raise SystemExit('run')")
    report = convert(folder, tmp_path / "target", to="albert_hub")
    assert "auto_map" in [ignored.key for ignored in report.source.ignored]
    assert [note for note in report.notes if "neither run nor converted: hostile_module.py" in note]
    assert "auto_map" not in (tmp_path / "target" / "config.json").read_text()
    assert not (tmp_path / "target" / "hostile_module.py").exists()
