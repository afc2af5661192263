from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from albert_hub_bridge import convert
from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.disk.atomic import new_folder
from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.errors import TargetError
from albert_hub_bridge.hubs.published import PUBLISHED_PRESETS
from albert_hub_bridge.layouts.registry import is_written_file, read_checkpoint, write_checkpoint
from albert_hub_bridge.mapping.weights import parameter_count
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.provenance.record import GoldenNumbers, read_record
from albert_hub_bridge.verification.engines.albert_hub import epsilon_effect
from conversion import recipes
from conversion.cards import CARDS, planned_cards, planned_record
from conversion.coverage import coverage_as_markdown
from conversion.recipes import Entry, convert_entry, golden_difference, read_entries
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint, write_sample_preset
from tests.conftest import KerasPreset
from tests.docs.tables import generated_part
from tests.forked import CLIENTS, Ended, run_forked, run_module
from tests.servers.hub_server import HubServer
from tests.servers.hub_store import card_problems
from tests.servers.kaggle_server import KaggleServer
from tests.servers.local_server import client_environment, run_client


ROOT = Path(__file__).parents[2]


def test_coverage_page_is_what_converts(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints: dict[tuple[Any, ...], Checkpoint] = {}
    effects: dict[tuple[Any, ...], float] = {}

    def read_once(source: SourceFolder, *options: Any) -> nullcontext[Checkpoint]:
        """Read each source once, not for each layout again: pickles take seconds."""
        if (source.folder, *options) not in checkpoints:
            checkpoints[source.folder, *options] = resources.enter_context(read_checkpoint(source, *options))
        return nullcontext(checkpoints[source.folder, *options])

    def effect_once(checkpoint: Checkpoint, epsilon: float, texts: Sequence[str]) -> float:
        """Compute once for each source what another epsilon changes, and each activation that it may get."""
        key = (checkpoint.folder, checkpoint.architecture, epsilon, *texts)
        if key not in effects:
            effects[key] = epsilon_effect(checkpoint, epsilon, texts)
        return effects[key]

    monkeypatch.setattr("albert_hub_bridge.commands.convert.read_checkpoint", read_once)
    monkeypatch.setattr("albert_hub_bridge.verification.engines.albert_hub.epsilon_effect", effect_once)
    with ExitStack() as resources:
        assert coverage_as_markdown() == generated_part("coverage")


def test_entries_are_the_published_checkpoints() -> None:
    keras, plain = read_entries("keras"), read_entries("transformers")
    assert {name: (f"kaggle://{preset.kaggle}", preset.parameters) for name, preset in PUBLISHED_PRESETS.items()} == {
        name: (entry.handle, entry.parameters) for name, entry in keras.items()
    }
    assert [entry.handle for entry in plain.values()] == [
        f"hf://albert/albert-{size}-v2" for size in ("base", "large", "xlarge", "xxlarge")
    ]
    for entry in (*keras.values(), *plain.values()):
        assert parameter_count(entry.architecture) == entry.parameters, entry.name


def test_planned_cards_are_up_to_date() -> None:
    assert {file.name: file.read_text(encoding="utf-8") for file in CARDS.iterdir()} == planned_cards()
    assert len(planned_cards()) == 8
    for name, text in planned_cards().items():
        assert text.count("Not measured. This card was written before the conversion.") == 1, name
        assert not [line for line in text.splitlines() if "| passed" in line or "identical" in line], name
        assert ("1.830863, 1.698645" in text) is (name == "albert_base_en_uncased-transformers.md")
        data = ModelCard(text).data
        assert (data.license, data.language, data.eval_results) == ("apache-2.0", "en", None)
        assert not card_problems(text)


def test_planned_record_is_a_record(tmp_path: Path) -> None:
    record = planned_record(read_entries("keras")["albert_base_en_uncased"], "transformers", "name")
    (tmp_path / "conversion.json").write_bytes(record.to_bytes())
    assert read_record(tmp_path) == record
    write_sample_preset(tmp_path / "preset")
    convert(tmp_path / "preset", tmp_path / "transformers", to="transformers")
    written = json.loads((tmp_path / "transformers" / "conversion.json").read_text())
    assert list(written) == list(json.loads(record.to_bytes()))


def _entry(architecture: Architecture, golden: GoldenNumbers | None = None) -> Entry:
    return Entry(
        "sample",
        "keras",
        "kaggle://nowhere",
        architecture,
        parameter_count(architecture),
        golden,
        "none",
        "nmt_nfkc",
    )


def test_recipe_compares_golden_numbers(keras_preset: KerasPreset, tmp_path: Path) -> None:
    first = {name: values[:1].astype(int).tolist() for name, values in keras_preset.inputs.items()}
    golden = GoldenNumbers(
        source="https://keras.io",
        **first,
        sequence_output=keras_preset.outputs["sequence_output"][0, 0, :5].tolist(),
        pooled_output=keras_preset.outputs["pooled_output"][0, :5].tolist(),
        max_abs_difference=None,
    )
    entry = _entry(keras_preset.architecture, golden)
    convert_entry(entry, keras_preset.folder, tmp_path / "transformers", "transformers", overwrite=False)
    assert golden_difference(golden, tmp_path / "transformers") <= 1e-5
    golden.pooled_output[0] += 2 * recipes.GOLDEN_TOLERANCE
    with pytest.raises(recipes.typer.Exit):
        recipes.verify_entry(entry, keras_preset.folder, tmp_path / "transformers")


def test_recipe_refuses_another_checkpoint(tmp_path: Path) -> None:
    write_sample_preset(tmp_path / "sample")
    entry = _entry(Architecture(**{**asdict(SAMPLE_ARCHITECTURE), "num_layers": 8, "intermediate_dim": 60}))
    with pytest.raises(recipes.ConfigurationError, match=r"differs +num_layers +expected 8, found 4") as error:
        convert_entry(entry, tmp_path / "sample", tmp_path / "target", "albert_hub", overwrite=False)
    assert "intermediate_dim" in str(error.value)
    assert not (tmp_path / "target").exists()
    with pytest.raises(recipes.ConfigurationError, match="differs"):
        recipes.verify_entry(entry, tmp_path / "sample", tmp_path / "sample")


def _run_recipe(entries: dict[str, recipes.Entry], output: Path) -> None:
    recipes.run_recipe(entries, "all", None, output, "albert_hub", hub=None, push=False, overwrite=False)


def test_recipe_makes_its_output(tmp_path: Path) -> None:
    write_sample_preset(tmp_path / "sample")
    entry = replace(_entry(SAMPLE_ARCHITECTURE), handle=str(tmp_path / "sample"))
    _run_recipe({"sample": entry}, tmp_path / "new" / "output")
    assert (tmp_path / "new" / "output" / f"{entry.name}-albert_hub" / "conversion.json").is_file()


def test_recipe_checks_all_targets_before_it_pulls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object) -> None:
        pytest.fail(f"{source} was pulled")

    monkeypatch.setattr(recipes, "inspect", refuse)
    entries = {name: replace(_entry(SAMPLE_ARCHITECTURE), name=name) for name in ("first", "second")}
    (tmp_path / "second-albert_hub").mkdir()
    (tmp_path / "second-albert_hub" / "notes.txt").write_text("mine")
    with pytest.raises(TargetError, match="second-albert_hub"):
        _run_recipe(entries, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(TargetError, match="could not be written"):
        _run_recipe(entries, tmp_path / "file" / "output")


@pytest.mark.parametrize("module", ["keras_to_hf", "hf_to_keras", "verify_parity"])
def test_recipe_runs_as_a_module(module: str, tmp_path: Path) -> None:
    def run(*arguments: str) -> Ended:
        return run_module(f"conversion.{module}", arguments, cwd=ROOT)

    assert "checkpoints.toml" in run("--help").stdout
    name = "albert-base-v2" if module == "hf_to_keras" else "albert_base_en_uncased"
    target = [] if module != "verify_parity" else [str(tmp_path)]
    result = run(name, str(tmp_path / "nowhere"), *target)
    assert result.code == 2
    assert "does not exist" in result.stderr
    assert run("no-such-entry", str(tmp_path), *target).code == 2


def test_recipe_converts_the_base_architecture(tmp_path: Path) -> None:
    """The recipe as it is run for a published checkpoint, with the real architecture and random weights."""
    name = "albert_base_en_uncased"
    with new_folder(tmp_path / "source", False, is_written_file) as draft:
        write_checkpoint(random_checkpoint(read_entries("keras")[name].architecture, std=0.02), draft, "keras")
    arguments = [name, str(tmp_path / "source"), "--output", str(tmp_path)]
    result = run_module("conversion.keras_to_hf", arguments, cwd=ROOT)
    assert result.code == 1, result.stderr  # random weights are not the published ones, and the recipe says so
    assert "golden numbers of KerasHub" in result.stdout
    for part in ("configuration", "tensors", "reference", "engines"):
        assert f"  {part} passed: " in result.stdout
    assert "sequence_output" in result.stdout


RECIPE = """
import contextlib, io, sys
from conversion import recipes
toml = recipes.CHECKPOINTS.with_name("none")
golden = recipes.GoldenNumbers(**golden, max_abs_difference=None)
entry = recipes.Entry("sample", "keras", handle, recipes.Architecture(**architecture), parameters, golden, *text)
recipes.read_entries = lambda kind: {"sample": entry, "again": entry}
import typer, conversion.keras_to_hf as recipe
recipe.read_entries = recipes.read_entries
app, result = typer.Typer(), []
app.command()(recipe.main)
for arguments in commands:
    out, err = io.StringIO(), io.StringIO()
    recipes.console.file = out
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app(arguments)
        except SystemExit as stop:
            result.append([stop.code, out.getvalue(), err.getvalue()])
"""


def test_recipe_pulls_converts_verifies_and_pushes(hub: HubServer, keras_preset: KerasPreset, tmp_path: Path) -> None:
    """The whole way with the real clients: nothing is pushed in a dry run, and all entries go by one command."""
    files = {
        path.relative_to(keras_preset.folder).as_posix(): path.read_bytes()
        for path in keras_preset.folder.rglob("*")
        if path.is_file()
    }
    golden = {name: values[:1].astype(int).tolist() for name, values in keras_preset.inputs.items()} | {
        "source": "https://keras.io",
        "sequence_output": keras_preset.outputs["sequence_output"][0, 0, :5].tolist(),
        "pooled_output": keras_preset.outputs["pooled_output"][0, :5].tolist(),
    }
    architecture = keras_preset.architecture.keras_arguments
    with KaggleServer() as kaggle:
        kaggle.add_model("keras/albert/keras/sample", files)
        environment = client_environment(tmp_path / "home", hub, kaggle) | {
            "PYTHONPATH": str(ROOT),
            "MPLBACKEND": "agg",
        }
        output = ["--output", str(tmp_path)]
        (dry, dry_said, _), (code, said, _), (again, _, exists), *wrong = run_client(
            RECIPE,
            environment,
            handle="kaggle://keras/albert/keras/sample/1",
            architecture=architecture,
            parameters=parameter_count(keras_preset.architecture),
            golden=golden,
            text=["none", "nmt_nfkc"],
            commands=[
                ["sample", *output],
                ["sample", *output, "--overwrite", "--push", "--hub", "hf://user"],
                ["all", *output],
                ["sample", *output, "--push"],
                ["all", str(tmp_path), *output],
                ["sample", *output, "--hub", "user"],
            ],
        )
        assert not kaggle.requests("CONNECT")
    assert (dry, code, again) == (0, 0, 2)
    assert "golden numbers of KerasHub" in dry_said
    assert "a dry run: --push sends 8 files" in dry_said
    assert "to hf://USER/sample-transformers:" in dry_said
    assert f"pushed to {hub.url}/user/sample-transformers" in said
    assert "exists" in exists
    assert [row[0] for row in wrong] == [2, 2, 2]
    sent = hub.files("user/sample-transformers")
    assert len(hub.requests("POST", "/commit/")) == 1
    text = sent["README.md"].decode()
    assert "[KerasHub's own test](https://keras.io)" in text
    assert "The largest absolute difference of this repository from them is" in text
    record = json.loads(sent["conversion.json"])
    assert (record["source"]["handle"], record["source"]["revision"]) == ("kaggle://keras/albert/keras/sample", "1")
    assert record["golden"]["max_abs_difference"] <= recipes.GOLDEN_TOLERANCE
    assert "parity.png" in sent


def test_recipe_without_network_prints_one_error(hub: HubServer, tmp_path: Path) -> None:
    environment = client_environment(tmp_path / "home", hub)
    result = run_module("conversion.hf_to_keras", ["all", "--output", str(tmp_path)], environment, ROOT)
    assert (result.code, result.stdout) == (2, "")
    assert "Error: hf://albert/albert-base-v2 could not be downloaded from Hugging Face." in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_demo_finds_all_weights_identical(tmp_path: Path) -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); from conversion.demo import main; main()"
    result = run_forked(code, str(ROOT), cwd=tmp_path, libraries=CLIENTS)
    assert result.code == 0, result.stderr
    assert "73 of 73 weights are identical, bit for bit." in result.stdout
    assert "AlbertHubModel, 43,264 parameters" in result.stdout
    assert "PASSED: source and target match." in result.stdout
