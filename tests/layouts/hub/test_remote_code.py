"""`convert --include-code`: repositories that load where this package is not installed, in processes without it."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from dataclasses import replace
from inspect import getsource
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from transformers import dynamic_module_utils
from typer.testing import CliRunner

import albert_hub_bridge
from albert_hub_bridge import convert, inspect, push, verify
from albert_hub_bridge.cli import app
from albert_hub_bridge.errors import TargetError
from albert_hub_bridge.layouts.hub.remote_code import code_files
from albert_hub_bridge.layouts.hub.repository import write_repository
from albert_hub_bridge.layouts.keras.preset import write_preset
from albert_hub_bridge.mapping.heads import HEADS, Head, HeadKind
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint
from tests.conftest import TEXTS
from tests.servers.hub_server import HubServer
from tests.servers.local_server import run_client


MODEL = Path(albert_hub_bridge.__file__).parent / "model"
NAMES = ["encoder", *HEADS, "text_normalization"]
PAIRS = [TEXTS, list(reversed(TEXTS))]
CARD_NAMES = {"torch", "transformers", "sentencepiece", "google"}  # google.protobuf
THEIRS = {"tokenizers", "huggingface_hub"}  # which transformers itself needs

# A process in which nothing of this package can be imported, wherever it is installed; nor what it alone needs.
ELSEWHERE = """
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("albert_hub_bridge", "jaxtyping"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
try:
    import albert_hub_bridge
except ModuleNotFoundError:
    pass
else:
    raise AssertionError("the package can be imported")
"""


def compute(folder: Any, auto: str, pairs: Any, **options: Any) -> tuple[Any, Any, dict[str, torch.Tensor]]:
    """Return a model, its tokenizer, and the ids and numbers that they make of texts. It runs here and elsewhere."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
    model = getattr(transformers, auto).from_pretrained(folder, **options).eval()
    inputs = tokenizer(*pairs, padding=True, truncation=True, max_length=24, return_tensors="pt")
    more = tokenizer(pairs[0][0] + " [SEP]", split_special_tokens=True, return_offsets_mapping=True)
    tensors = {f"in {name}": value for name, value in inputs.items()}
    tensors |= {f"in one {name}": torch.tensor(value) for name, value in more.items()}
    if auto == "AutoModelForMultipleChoice":
        inputs = {name: value.unsqueeze(0) for name, value in inputs.items()}
    with torch.inference_mode():
        outputs = model(**inputs, output_hidden_states=True)
    tensors |= {f"out {name}": value for name, value in outputs.items() if name != "hidden_states"}
    tensors |= {f"out hidden {index}": value for index, value in enumerate(outputs.hidden_states)}
    return model, tokenizer, {name: value.clone() for name, value in tensors.items()}


IMPORTS = "from __future__ import annotations\nimport sys, torch, transformers\nfrom typing import Any\n"
COMPUTE = IMPORTS + getsource(compute)


def _repository(folder: Path, vocabulary: bytes, kind: HeadKind | None, **options: Any) -> Path:
    """Convert a random checkpoint with a head into a repository with code."""
    source = folder.with_name(f"{folder.name}-source")
    source.mkdir()
    head = Head(kind=kind) if kind is not None else None
    architecture = replace(SAMPLE_ARCHITECTURE, dropout=0.1)
    write_repository(random_checkpoint(architecture, vocabulary, head=head), source, "albert_hub")
    convert(source, folder, to="albert_hub", include_code=True, **options)
    return folder


@pytest.fixture(scope="module")
def repositories(vocabulary: bytes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Return repositories with code, and the Auto class of each: every head, and one with text normalization."""
    parent = tmp_path_factory.mktemp("code")
    made = {"encoder": (_repository(parent / "encoder", vocabulary, None), "AutoModel")}
    for kind, head in HEADS.items():
        made[kind] = _repository(parent / kind, vocabulary, kind), head.auto
    made["text_normalization"] = (
        _repository(parent / "text.normalization-1", vocabulary, None, normalize="uncased"),
        "AutoModel",
    )
    return made


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("home")
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HF_HOME")}
    return {**kept, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "HF_MODULES_CACHE": str(home / "modules")}


@pytest.fixture(scope="module")
def loaded_elsewhere(
    repositories: dict[str, tuple[Path, str]], offline: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """Load all of them without the package, save each, load what was saved; return the tensors and what was said."""
    folder = tmp_path_factory.mktemp("elsewhere")
    code = """
    import logging, warnings
    from pathlib import Path
    from safetensors.torch import save_file

    warnings.simplefilter("error")
    said = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("transformers").addHandler(handler)
    result, options = {}, {"trust_remote_code": True}
    for name, (repository, auto) in repositories.items():
        model, tokenizer, tensors = compute(repository, auto, pairs, **options)
        save_file(tensors, f"{folder}/{name}.safetensors")
        saved = f"{folder}/{name}-saved"
        type(model).from_pretrained(repository).save_pretrained(saved)  # past the Auto class: the code has to follow
        tokenizer.save_pretrained(saved)
        save_file(compute(saved, auto, pairs, **options)[2], f"{folder}/{name}-saved.safetensors")
        files = sorted(path.name for path in Path(saved).glob("*.py"))
        result[name] = [type(each).__name__ for each in (model.config, model, tokenizer)], files, list(said)
        said.clear()
    try:
        type(model).from_preset("anything")
    except ImportError as error:
        result["from_preset"] = str(error)
    """
    values = {"repositories": {name: [str(row[0]), row[1]] for name, row in repositories.items()}, "pairs": PAIRS}
    return folder, _elsewhere(code, offline, folder=str(folder), **values)


def _elsewhere(code: str, environment: dict[str, str], **values: Any) -> Any:
    return run_client(COMPUTE + ELSEWHERE + textwrap.dedent(code), environment, **values)


@pytest.mark.parametrize("name", NAMES)
def test_a_process_without_the_package_computes_the_same(
    name: str, repositories: dict[str, tuple[Path, str]], loaded_elsewhere: tuple[Path, dict[str, Any]]
) -> None:
    folder, found = loaded_elsewhere
    repository, auto = repositories[name]
    model, tokenizer, expected = compute(repository, auto, PAIRS)
    assert type(model).__module__ == "albert_hub_bridge.model.modeling_albert_hub"
    classes, files, said = found[name]
    again = compute(folder / f"{name}-saved", auto, PAIRS)[2]
    for key, value in expected.items():  # weights lie elsewhere in that file, and a sum of floats may depend on where
        torch.testing.assert_close(again[key], value, msg=key)
    assert classes == [type(each).__name__ for each in (model.config, model, tokenizer)]
    assert not said
    assert set(files) == set(code_files())
    assert any(key.startswith("out") for key in expected)
    for run, ours in ((name, expected), (f"{name}-saved", again)):
        tensors = safetensors.torch.load_file(folder / f"{run}.safetensors")
        assert set(tensors) == set(ours)
        for key, value in ours.items():
            assert torch.equal(tensors[key], value), (run, key)


def test_the_tokenizer_normalizes_as_the_repository_does(loaded_elsewhere: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = loaded_elsewhere
    plain, ruled = (
        safetensors.torch.load_file(folder / f"{name}.safetensors") for name in ("encoder", "text_normalization")
    )
    assert plain["in input_ids"].tolist() != ruled["in input_ids"].tolist()


def test_from_preset_asks_for_the_package(loaded_elsewhere: tuple[Path, dict[str, Any]]) -> None:
    assert (
        loaded_elsewhere[1]["from_preset"] == "from_preset needs the package albert-hub-bridge, which is not installed."
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_auto_map_names_the_encoder_and_its_head(name: str, repositories: dict[str, tuple[Path, str]]) -> None:
    repository, auto = repositories[name]
    config = json.loads((repository / "config.json").read_text())
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", auto}
    assert config["auto_map"][auto] == f"modeling_albert_hub.{config['architectures'][0]}"
    tokenizer = json.loads((repository / "tokenizer_config.json").read_text())
    assert tokenizer["auto_map"] == {"AutoTokenizer": ["tokenization_albert_hub.AlbertHubTokenizer", None]}


# With the package.


def test_with_the_package_its_own_model_is_used(
    repositories: dict[str, tuple[Path, str]], offline: dict[str, str], tmp_path: Path
) -> None:
    code = """
    import warnings
    warnings.simplefilter("error")

    def modules(model, tokenizer):
        return [type(each).__module__.split(".")[0] for each in (model.config, model, tokenizer)]

    remote, tokenizer, expected = compute(repository, auto, pairs, trust_remote_code=True)
    assert "albert_hub_bridge" not in sys.modules
    result = [modules(remote, tokenizer)]
    read = type(remote).from_preset(repository)  # where it is installed it is used, by code of the repository too
    state = remote.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in read.state_dict().items())
    import albert_hub_bridge

    for trust in (None, False, True):
        model, tokenizer, tensors = compute(repository, auto, pairs, trust_remote_code=trust)
        assert set(tensors) == set(expected) and all(torch.equal(expected[name], tensors[name]) for name in expected)
        result.append(modules(model, tokenizer))
        # What is saved must not name code that is not there.
        for each in (model, tokenizer):
            each.save_pretrained(f"{folder}/{trust}")
        saved = compute(f"{folder}/{trust}", auto, pairs, trust_remote_code=True)[2]
        assert all(torch.equal(expected[name], saved[name]) for name in expected)
    """
    repository, auto = repositories["sequence_classification"]
    environment = {**offline, "PYTHONPATH": str(Path(albert_hub_bridge.__file__).parent.parent)}
    found = run_client(
        COMPUTE + textwrap.dedent(code),
        environment,
        repository=str(repository),
        auto=auto,
        pairs=PAIRS,
        folder=str(tmp_path),
    )
    there, here = "transformers_modules", "albert_hub_bridge"
    # Of tokenizers transformers takes the repository's wherever it may.
    assert found == [[there] * 3, [here] * 3, [here] * 3, [here, here, there]]
    assert "auto_map" not in json.loads((tmp_path / "True" / "config.json").read_text())
    assert "auto_map" not in json.loads((tmp_path / "None" / "tokenizer_config.json").read_text())
    assert (tmp_path / "True" / "tokenization_albert_hub.py").is_file()


# The files.


def test_code_files_are_those_that_transformers_follows(
    repositories: dict[str, tuple[Path, str]],
) -> None:
    repository, _ = repositories["encoder"]
    names = ["configuration_albert_hub.py", "modeling_albert_hub.py", "tokenization_albert_hub.py"]
    followed = {
        Path(file).name for name in names for file in dynamic_module_utils.get_relative_import_files(MODEL / name)
    }
    found = {file.name: file.read_bytes() for file in repository.glob("*.py")}
    assert set(found) == {*names, *followed}
    assert found == {file.name: file.read_bytes() for file in MODEL.glob("*.py") if file.name != "__init__.py"}


@pytest.mark.parametrize("file", sorted(MODEL.glob("*.py")), ids=lambda file: file.name)
def test_code_files_import_only_what_the_card_names(file: Path) -> None:
    imported = set(dynamic_module_utils.get_imports(file))
    assert imported - set(sys.stdlib_module_names) <= CARD_NAMES | THEIRS


def test_record_and_card_mention_the_code(vocabulary: bytes, tmp_path: Path) -> None:
    folder = _repository(tmp_path / "coded", vocabulary, "masked_lm")
    record = json.loads((folder / "conversion.json").read_text())
    assert record["command"].endswith("--to albert_hub --include-code")
    assert set(code_files()) < set(record["target"]["files"])
    text = (folder / "README.md").read_text()
    assert 'AutoModelForMaskedLM.from_pretrained("coded", trust_remote_code=True)' in text
    assert 'AutoTokenizer.from_pretrained("coded", trust_remote_code=True)' in text
    needed = text.partition("`pip install ")[2].partition("`")[0]
    assert {name.strip('"').partition(">")[0] for name in needed.split()} == (CARD_NAMES - {"google"}) | {"protobuf"}
    assert "import albert_hub_bridge  #" not in text
    with (folder / "modeling_albert_hub.py").open("a") as file:
        file.write("# changed\n")
    assert "since then: modeling_albert_hub.py (changed)" in str(inspect(folder).made_by)
    with pytest.raises(TargetError, match=r"modeling_albert_hub.py \(changed\)"):
        push(folder, "hf://user/albert")
    convert(tmp_path / "coded-source", folder, to="albert_hub", overwrite=True)  # replaced as a whole
    assert not list(folder.glob("*.py"))
    assert "trust_remote_code" not in (folder / "README.md").read_text()


def test_a_repository_with_code_becomes_a_preset_again(vocabulary: bytes, tmp_path: Path) -> None:
    source = tmp_path / "preset"
    source.mkdir()
    head = Head(kind="sequence_classification", num_labels=3, activation="softmax")
    write_preset(random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary, head=head), source)
    convert(source, tmp_path / "coded", to="albert_hub", include_code=True)
    assert verify(source, tmp_path / "coded").passed
    report = convert(tmp_path / "coded", tmp_path / "back", to="keras")
    said = "Code of a source is neither run nor converted: architecture.py, configuration_albert_hub.py, "
    assert any(note.startswith(said) for note in report.notes)
    assert {key.key for key in report.source.ignored} >= {"auto_map"}
    result = verify(source, tmp_path / "back")
    assert result.passed
    assert result.source_engine == result.target_engine
    assert result.source_engine.startswith("keras_hub")
    assert result.max_abs_difference["head_output"] == 0
    assert not list((tmp_path / "back").glob("*.py"))


@pytest.mark.parametrize("layout", ["albert_hub", "transformers"])
def test_code_of_a_source_is_neither_run_nor_converted(layout: Any, vocabulary: bytes, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write_repository(random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary), source, layout)
    evil = f"from pathlib import Path\nPath({str(tmp_path / 'was run')!r}).touch()\n"
    for name in ("evil.py", "modeling_albert_hub.py"):
        (source / name).write_text(evil)
    for name, autos in (("config", ("AutoConfig", "AutoModel")), ("tokenizer_config", ("AutoTokenizer",))):
        file = source / f"{name}.json"
        code = {auto: ["evil.Class", None] if auto == "AutoTokenizer" else "evil.Class" for auto in autos}
        file.write_text(json.dumps({**json.loads(file.read_text()), "auto_map": code}))
    report = convert(source, tmp_path / "target", to="albert_hub")
    reasons = [key.reason for key in report.source.ignored if key.key == "auto_map"]
    assert reasons == ["names code of the source, which is neither run nor converted"] * 2
    assert "Code of a source is neither run nor converted: evil.py, modeling_albert_hub.py." in report.notes
    assert not list((tmp_path / "target").glob("*.py"))
    assert "auto_map" not in (tmp_path / "target" / "config.json").read_text()
    assert verify(source, tmp_path / "target").passed
    convert(source, tmp_path / "coded", to="albert_hub", include_code=True)
    assert (tmp_path / "coded" / "modeling_albert_hub.py").read_bytes() == (
        MODEL / "modeling_albert_hub.py"
    ).read_bytes()
    assert not (tmp_path / "coded" / "evil.py").exists()
    assert not (tmp_path / "was run").exists()


@pytest.mark.parametrize("to", ["keras", "transformers"])
def test_other_layouts_refuse_code(to: Any, tmp_path: Path) -> None:
    with pytest.raises(
        TargetError, match=f"Only the albert_hub layout can include code, and the target's layout is {to}"
    ):
        convert(tmp_path / "sample", tmp_path / "target", to=to, include_code=True)
    arguments = ["convert", str(tmp_path / "sample"), str(tmp_path / "target"), "--to", to, "--include-code"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "Leave out --include-code (include_code=True), or convert to albert_hub." in result.output
    assert not list(tmp_path.iterdir())


def test_a_repository_with_code_loads_from_a_hub(
    vocabulary: bytes, hub: HubServer, environment: dict[str, str], tmp_path: Path
) -> None:
    folder = _repository(tmp_path / "albert", vocabulary, None)
    (folder / "mine.py").write_text("'stays here'")
    command = """
    from albert_hub_bridge import inspect, push
    push(folder, "hf://user/albert", verify=False)
    result = inspect("hf://user/albert").made_by
    """
    assert "since then" not in run_client(command, environment, folder=str(folder))
    assert {name for name in hub.files("user/albert") if name.endswith(".py")} == set(code_files())
    code = """
    model, tokenizer, tensors = compute("user/albert", "AutoModel", pairs, trust_remote_code=True)
    result = type(model).__module__, {name: tensors[name].tolist() for name in ("in input_ids", "out pooler_output")}
    """
    module, found = _elsewhere(code, {**environment, "HF_HOME": str(tmp_path / "elsewhere")}, pairs=PAIRS)
    assert module.startswith("transformers_modules.user.albert.")
    expected = compute(folder, "AutoModel", PAIRS)[2]
    for name, values in found.items():
        assert torch.equal(torch.tensor(values), expected[name]), name
