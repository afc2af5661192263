"""The journey in a notebook: convert, verify and inspect, and look at what the cells show."""

from __future__ import annotations

import base64
import textwrap
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from tests.html_report import HtmlReport


CELLS = [
    """
    from pathlib import Path

    import torch
    import tqdm.auto  # warns if there are no widgets
    from albert_hub_bridge import AlbertBackbone, convert, inspect, verify
    """,
    'convert("preset", "repository", to="transformers", dtype=torch.float32)',
    """
    verification = verify("preset", "repository")
    verification
    """,
    "inspect(Path('repository'))",
    "print(verification)",
    """
    try:
        inspect(Path("typo"))
    except FileNotFoundError as error:
        print(error)
    """,
    """
    AlbertBackbone.from_preset("preset").summary()
    """,
]


@pytest.fixture(scope="module")
def outputs(preset: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """Run the notebook, and return the outputs of each cell after the imports."""
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "preset").symlink_to(preset)
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(textwrap.dedent(cell).strip()) for cell in CELLS]
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3")
        client.execute(cwd=str(folder))
    return [cell.outputs for cell in notebook.cells[1:]]


def _html(outputs: list[Any]) -> HtmlReport:
    (output,) = outputs  # and nothing that a library printed
    assert output.output_type == "execute_result"
    return HtmlReport(output.data["text/html"])


def _printed(outputs: list[Any]) -> str:
    (output,) = outputs
    assert (output.output_type, output.name) == ("stream", "stdout")
    return str(output.text)


def test_a_conversion_is_shown(outputs: list[list[Any]]) -> None:
    lines = _html(outputs[0]).lines
    assert any("preset (keras) to repository (transformers): 43,264 parameters, float32" in line for line in lines)


def test_a_verification_is_a_table_and_a_picture(outputs: list[list[Any]]) -> None:
    page = _html(outputs[1])
    assert {"source", "target", "configuration", "tensors", "reference", "engines", "texts"} == set(page.rows)
    assert page.rows["tensors"].startswith("passed: ")
    assert page.lines[-1].endswith("PASSED: source and target match.")
    (picture,) = page.pictures
    assert base64.b64decode(picture.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")


def test_an_inspection_is_a_table(outputs: list[list[Any]]) -> None:
    page = _html(outputs[2])
    assert page.rows["hidden_dim"] == "32"
    assert page.rows["size"] == "0.2 MB, float32"


def test_print_shows_what_the_command_shows(outputs: list[list[Any]]) -> None:
    text = _printed(outputs[3])
    assert text.startswith("source         preset, computed by ")
    assert text.endswith("PASSED: source and target match.\n")
    assert "The folder typo does not exist." in _printed(outputs[4])


def test_a_summary_is_printed(outputs: list[list[Any]]) -> None:
    shown = "".join(str(output.get("text", "")) or str(output.data["text/plain"]) for output in outputs[5])
    assert "pooled_dense (Dense)" in shown
    assert "Total params: 43,264 (169.00 KB)" in shown
