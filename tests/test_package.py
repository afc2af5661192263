"""The package as a whole: its imports, its public names, its wheel, and its registration with the Auto classes."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import albert_hub_bridge
from conversion.sample import write_sample_preset
from tests.forked import run_forked


ROOT = Path(__file__).parent.parent


def _run_forked(code: str) -> str:
    done = run_forked(code)
    assert done.code == 0, done.stderr
    return done.stdout


def _run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    return result.stdout


def _imported_after(code: str, *arguments: str) -> set[str]:
    names = _run(code + "\nimport sys; print('LOADED', *sys.modules)", *arguments).split("LOADED")[-1].split()
    return {name.split(".")[0] for name in names}


def test_import_is_light() -> None:
    heavy = {"keras", "keras_hub", "tensorflow", "jax", "h5py", "ray", "kagglehub", "rich", "torch", "transformers"}
    assert not heavy & _imported_after("import albert_hub_bridge")


def test_help_imports_no_library_that_only_commands_need() -> None:
    heavy = {
        *("asyncio", "google", "h5py", "httpx2", "huggingface_hub", "jinja2", "ml_dtypes", "numpy", "rich"),
        *("sentencepiece", "tokenizers", "torch", "transformers", "wrapt", "yaml"),
    }
    loaded = _imported_after("from albert_hub_bridge.cli import app\napp(['--help'], standalone_mode=False)")
    assert "typer" in loaded
    assert not heavy & loaded


def test_converting_needs_neither_torch_nor_transformers_nor_keras(tmp_path: Path) -> None:
    write_sample_preset(tmp_path / "sample")
    code = """
import sys
from albert_hub_bridge.cli import app
for source, to in (("sample", "transformers"), ("transformers", "albert_hub"), ("albert_hub", "keras")):
    app(["convert", f"{sys.argv[1]}/{source}", f"{sys.argv[1]}/{to}", "--to", to], standalone_mode=False)
"""
    loaded = _imported_after(code, str(tmp_path))
    assert (tmp_path / "keras" / "model.weights.h5").is_file()
    assert not {"torch", "transformers", "keras", "keras_hub", "tensorflow"} & loaded


# transformers has circular imports: our classes must not be imported before the modules that they need.
@pytest.mark.parametrize(
    "first",
    [
        "albert_hub_bridge",
        "albert_hub_bridge.model.configuration_albert_hub",
        "albert_hub_bridge.model.modeling_albert_hub",
        "albert_hub_bridge.model.tokenization_albert_hub",
        "transformers",
        "transformers.modeling_layers",
        "transformers.models.bert.modeling_bert",
        "transformers.models.auto.modeling_auto",
        "transformers.models.auto.tokenization_auto",
        "transformers.pipelines",
        "transformers.trainer",
    ],
)
@pytest.mark.parametrize("order", ["before", "after"])
def test_auto_classes_are_registered_in_any_import_order(first: str, order: str) -> None:
    imports = f"import {first}\n"
    imports = imports + "import albert_hub_bridge\n" if order == "before" else "import albert_hub_bridge\n" + imports
    code = """
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING
config = AutoConfig.for_model("albert_hub")
print(type(config).__name__, MODEL_MAPPING[type(config)].__name__, TOKENIZER_MAPPING[type(config)].__name__)
"""
    assert _run_forked(imports + code).split() == ["AlbertHubConfig", "AlbertHubModel", "AlbertHubTokenizer"]


def test_type_checkers_see_every_public_name_in_its_module() -> None:
    tree = ast.parse(Path(albert_hub_bridge.__file__).read_text(encoding="utf-8"))
    (block,) = [each for each in tree.body if isinstance(each, ast.If) and ast.unparse(each.test) == "TYPE_CHECKING"]
    seen = {}
    for statement in block.body:
        assert isinstance(statement, ast.ImportFrom)
        assert all(alias.asname == alias.name for alias in statement.names)
        seen[str(statement.module)] = tuple(alias.name for alias in statement.names)
    assert seen == {f"albert_hub_bridge.{module}": names for module, names in albert_hub_bridge._PUBLIC.items()}


@pytest.mark.parametrize("name", albert_hub_bridge.__all__)
def test_every_public_name_can_be_imported_first(name: str) -> None:
    code = f"from albert_hub_bridge import {name}; print({name}.__name__, bool({name}.__doc__))"
    assert _run_forked(code).split() == [name, "True"]
    assert name in dir(albert_hub_bridge)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        albert_hub_bridge.nothing  # noqa: B018


def test_a_library_of_another_version_is_named(tmp_path: Path) -> None:
    for name, version, needs in (("protobuf", "5.29.5", ""), ("albert_hub_bridge", "9", "protobuf>=7.36.1")):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        needed = f"Requires-Dist: {needs}\nRequires-Dist: nothing>=1; extra == 'test'\n" if needs else ""
        (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{needed}")
    # What an old protobuf does: the real one was tried by hand.
    (tmp_path / "sentencepiece").mkdir()
    (tmp_path / "sentencepiece" / "__init__.py").write_text("raise Exception('Detected incompatible Protobuf')")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    message = (
        "albert-hub-bridge cannot be used with the libraries that are installed:\n"
        "  needed protobuf>=7.36.1, found 5.29.5\nRun: pip install 'protobuf>=7.36.1'\n"
    )
    command = [sys.executable, "-m", "albert_hub_bridge", "inspect", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"Error: {message}")
    command = [sys.executable, "-c", "import albert_hub_bridge; albert_hub_bridge.convert"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stderr.endswith(f"ImportError: {message}")


def test_wheel_contains_the_package_only(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(f"albert_hub_bridge-{albert_hub_bridge.__version__}.dist-info/METADATA").decode()
    top = {name.split("/")[0] for name in names}
    assert top == {"albert_hub_bridge", f"albert_hub_bridge-{albert_hub_bridge.__version__}.dist-info"}
    sources = {str(file.relative_to(ROOT)) for file in (ROOT / "albert_hub_bridge").rglob("*.py")}
    assert {name for name in names if name.startswith("albert_hub_bridge/")} == {
        *sources,
        "albert_hub_bridge/py.typed",
        "albert_hub_bridge/provenance/templates/model_card.md",
        "albert_hub_bridge/ui/page.css",
    }
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.11" in metadata
