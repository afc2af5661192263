"""Repositories with random choices, written by the real transformers: no conversion loses a thing without a word.

Each seed makes one repository: a model with any head, keys, dtype and labels, and a tokenizer of any kind with sides
and lengths. It is converted to one of the layouts and verified.
`python -m tests.layouts.test_generated_repositories 100 160` tries the seeds from 100 to 159.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, get_args

import pytest
import torch
import transformers
from safetensors import safe_open

from albert_hub_bridge import convert, verify
from albert_hub_bridge.choices import PRESET_LAYOUTS, LayoutName
from albert_hub_bridge.commands.reports import Conversion
from albert_hub_bridge.errors import CheckpointError
from albert_hub_bridge.layouts.hub.files import TOKENIZER_FILES
from albert_hub_bridge.layouts.registry import open_source
from albert_hub_bridge.mapping.configs import ALBERT, Constant
from albert_hub_bridge.provenance.card_metadata import card_metadata, read_card_keys
from conversion.sample import train_vocabulary
from tests.layouts.hub import tokenizer_kinds as kinds


SEEDS, GROUPS = 60, 12
LAYOUTS = get_args(LayoutName)
_KEYS_OF_HEADS = {"classifier_dropout_prob", "id2label", "label2id", "problem_type"}
_WAYS_OUT = ("drop_head", "drop_tokenizer", "allow_approximate_gelu")
# What a repository for transformers may have that says nothing about the model.
FREE_FILES = {"README.md", "generation_config.json", "conversion.json", "special_tokens_map.json"}

HEADS = (
    "AlbertModel",
    "AlbertForMaskedLM",
    "AlbertForPreTraining",
    "AlbertForSequenceClassification",
    "AlbertForTokenClassification",
    "AlbertForQuestionAnswering",
    "AlbertForMultipleChoice",
)


# Model cards, and the license and languages that the new card has to have; None where the report has to say more.
CARDS: dict[str | None, tuple[str | None, list[str]] | None] = {
    None: (None, []),
    "# No metadata\n\n---\n\ntext\n": (None, []),
    "---\nlicense: mit\nlanguage: en\n---\n# One\n": ("mit", ["en"]),
    "---\nlicense:\n- apache-2.0\n- mit\nlanguage: [no, en]\ntags: [a, 1, ~]\nmodel-index: [{name: x}]\n---\n": (
        "apache-2.0",
        ["no", "en"],
    ),
    "---\r\nlanguage:\r\n- fr\r\n---\r\n": (None, ["fr"]),
    "---\nwidget:\n- text: 'a: b'\nlicense: other\nlicense_name: mine\n---\n": ("other", []),
    "---\nlicense: mit: x\n---\n": None,
    "---\n- a\n- list\n---\n": None,
    "---\nlicense: mit\n\n# Never closed\n": None,
}


def write_repository(random: Random, folder: Path) -> str:
    """Write a repository, and return its choices in words."""
    head = random.choice(HEADS)
    activation = random.choice([*["gelu_new"] * 8, "gelu", "relu"])
    dropout = random.choice([0.0, 0.1])
    config = transformers.AlbertConfig(
        vocab_size=kinds.MAX_TOKENS,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=random.choice([1, 2, 4]),
        num_hidden_groups=1,
        inner_group_num=random.choice([1, 2]),
        num_attention_heads=random.choice([1, 2, 4]),
        intermediate_size=24,
        max_position_embeddings=random.choice([40, 64]),
        type_vocab_size=2,
        hidden_act=activation,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=random.choice([*[dropout] * 8, 0.05]),
        layer_norm_eps=random.choice([*[1e-12] * 8, 1e-5]),
        classifier_dropout_prob=random.choice([0.1, 0.3]),
        num_labels=2 if head == "AlbertForQuestionAnswering" else random.choice([2, 3, 5]),
        **random.choice([{}, {"problem_type": "multi_label_classification"}, {"layers_to_keep": []}, {"my_note": "x"}]),
    )
    torch.manual_seed(random.randrange(1 << 30))
    model = getattr(transformers, head)(config)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    dtype = random.choice([torch.float32, torch.float32, torch.bfloat16])
    model.to(dtype).save_pretrained(folder)
    kind = random.choice(list(TOKENIZERS))
    TOKENIZERS[kind](random, folder)
    # Not of the same generator, so that a seed keeps its repository.
    if (card := Random(str(random.random())).choice(list(CARDS))) is not None:
        (folder / "README.md").write_bytes(card.encode())
    return f"{head}, {activation}, {dtype}, {kind}"


def _alberts(random: Random, folder: Path) -> None:
    """ALBERT's own tokenizer, as transformers 5 saves it."""
    symbols = random.choice([[], ["(", ")", "."]])
    rule = random.choice(["nmt_nfkc", "nfkc", "identity", "nmt_nfkc_cf"])
    proto = train_vocabulary(user_defined_symbols=symbols, normalization_rule_name=rule)
    (folder / "spiece.model").write_bytes(proto)
    tokenizer = transformers.AlbertTokenizer.from_pretrained(folder, **_settings(random))
    for added in random.choice([[], [], ["skype"], ["skype", "covid19"]]):
        tokenizer.add_tokens([added])
    tokenizer.save_pretrained(folder)
    if random.random() < 0.5:
        (folder / "spiece.model").unlink()


def _model_alone(random: Random, folder: Path) -> None:
    """What the first ALBERTs on the Hub have."""
    (folder / "spiece.model").write_bytes(train_vocabulary())
    if random.random() < 0.5:
        (folder / "tokenizer_config.json").write_text(json.dumps(_settings(random)))


def _settings(random: Random) -> dict[str, Any]:
    choices = {
        "do_lower_case": [True, False],
        "keep_accents": [True, False],
        "padding_side": ["right", "left"],
        "truncation_side": ["right", "left"],
        "model_max_length": [10**30, 32, 512],
    }
    return {key: random.choice(values) for key, values in choices.items() if random.random() < 0.6}


def _of_kind(write: Callable[[Path], object]) -> Callable[[Random, Path], None]:
    def write_with_settings(random: Random, folder: Path) -> None:
        write(folder)
        file = folder / "tokenizer_config.json"
        settings = json.loads(file.read_text()) if file.exists() else {}
        sides = {key: value for key, value in _settings(random).items() if key.endswith(("_side", "_length"))}
        file.write_text(json.dumps({**settings, **sides}))

    return write_with_settings


TOKENIZERS: dict[str, Callable[[Random, Path], None]] = {
    "ALBERT's": _alberts,
    "ALBERT's again": _alberts,  # the most common one
    "a SentencePiece model alone": _model_alone,
    "word pieces": _of_kind(kinds.word_pieces),
    "word pieces, named in config.json": _of_kind(kinds.word_pieces_named_in_config),
    "saved word pieces": _of_kind(kinds.saved_word_pieces),
    "a pipeline": _of_kind(kinds.pipeline),
    "a cased pipeline": _of_kind(kinds.cased_pipeline),
    "byte pairs": _of_kind(kinds.byte_pairs),
    "added beside a model": _of_kind(kinds.added_beside_a_model),
    "none": lambda random, folder: None,
}


def check(seed: int, folder: Path) -> None:
    """Make the repository of a seed, convert it, and assert that the reports say all that changed."""
    random = Random(seed)
    source, target = folder / "source", folder / "target"
    words = write_repository(random, source)
    to: LayoutName = LAYOUTS[seed % len(LAYOUTS)]
    print(f"seed {seed} to {to}: {words}")
    check_conversion(source, target, to)


def check_conversion(source: Path, target: Path, to: LayoutName) -> Conversion | None:
    """Convert a repository, assert that the reports say all that changed, and return the first; None if refused."""
    report = _convert(source, target, to)
    if report is None:
        return None
    _check_tensors(source, target, to, report)
    if to != "keras":
        _check_keys(source, target, report)
    _check_files(source, target, to, report)
    _check_card(source, target, report)
    verified = verify(source, target)
    assert (report.changed_texts or 0) == verified.different_ids, (report, verified)
    notes = " ".join(report.notes)
    if not verified.passed:
        failures = {name: check.failures for name, check in verified.checks.items() if check.failures}
        said = report.changed_texts or "Because of --drop-tokenizer" in notes
        assert said, failures
        assert set(failures) <= {"configuration", "texts", "texts (KerasHub)"}, failures
    return report


def _convert(source: Path, target: Path, to: LayoutName) -> Conversion | None:
    """Convert a repository, with the options that a refusal names; None if there is no way."""
    try:
        return convert(source, target, to=to)
    except CheckpointError as error:
        message = str(error)
    assert to in PRESET_LAYOUTS, message
    assert not target.exists()
    options = {name: True for name in _WAYS_OUT if f"{name}=True" in message}
    if not options:
        assert "KerasHub computes nothing else" in message
        return None
    return convert(source, target, to=to, **options)  # never refused again


def _names(folder: Path) -> set[str]:
    with safe_open(folder / "model.safetensors", "numpy") as file:
        return set(file.keys())


def _check_tensors(source: Path, target: Path, to: LayoutName, report: Conversion) -> None:
    if to == "keras":
        return  # `verify` compares them all
    assert len(_names(target)) + len(report.dropped) >= len(_names(source))


def _check_keys(source: Path, target: Path, report: Conversion) -> None:
    """Every key of the source is in the target, in its dialect, or named."""
    reported = {key.key for key in (*report.source.ignored, *report.ignored)}
    before, after = (_json(folder / "config.json") for folder in (source, target))
    renamed = set(_json(source / "config.json")) if report.layout == "albert_hub" else set()
    neutral = {key for key, rule in ALBERT.items() if isinstance(rule, Constant)}  # other values are refused
    lost = set(before) - set(after) - reported - neutral
    if report.head != report.source.head:  # the tensors of the head are listed, and its settings are not
        lost -= _KEYS_OF_HEADS
    assert lost <= (renamed if report.layout == "albert_hub" else set()), lost
    if report.tokenizer is not None:
        settings, others = (_json(folder / "tokenizer_config.json") for folder in (source, target))
        assert {key: value for key, value in others.items() if key != "tokenizer_class"} == {
            key: value for key, value in settings.items() if key != "tokenizer_class"
        }
    elif (source / "tokenizer_config.json").exists() and not report.dropped_tokenizer:
        settings, others = (_json(folder / "tokenizer_config.json") for folder in (source, target))
        assert not set(settings) - set(others) - reported


def _check_files(source: Path, target: Path, to: LayoutName, report: Conversion) -> None:
    notes = " ".join(report.notes)
    files = {path.name for path in source.iterdir()} - {"config.json", "model.safetensors"} - FREE_FILES
    kept = {path.name for path in target.iterdir()}
    lost = {name for name in files - kept if name not in notes}
    if to == "keras" or report.tokenizer is None:  # the vocabulary has another form there
        lost -= set(TOKENIZER_FILES)
    assert not lost, notes


def _check_card(source: Path, target: Path, report: Conversion) -> None:
    """The metadata of the source's card is in the new one, or the report says that it could not be read."""
    card = (source / "README.md").read_bytes().decode() if (source / "README.md").exists() else None
    expected = CARDS[card]
    assert any("The metadata of the source's README.md" in note for note in report.notes) == (expected is None)
    found = card_metadata(read_card_keys(open_source(target)))
    assert (found.license, found.language) == (expected or (None, []))


def _json(file: Path) -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return content


@pytest.mark.parametrize("group", range(GROUPS))
def test_generated_repositories(group: int, tmp_path: Path) -> None:
    for seed in range(group, SEEDS, GROUPS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        check(seed, folder)


if __name__ == "__main__":
    for number in range(*map(int, sys.argv[1:3])):
        with tempfile.TemporaryDirectory() as parent:
            check(number, Path(parent))
