from __future__ import annotations

import json
from pathlib import Path

import pytest

from albert_hub_bridge import __version__, inspect
from albert_hub_bridge.errors import ConfigurationError
from tests.conftest import converted


def test_record_is_shown_and_checked(preset: Path, tmp_path: Path) -> None:
    folder = converted(preset, tmp_path / "transformers")
    assert inspect(folder).made_by == f"converted from sample, by albert-hub-bridge {__version__}"
    (folder / "tokenizer_config.json").write_text("{}")
    assert "since then: tokenizer_config.json (changed)" in str(inspect(folder).made_by)
    record = json.loads((folder / "conversion.json").read_text())
    for change, problem in (
        ({"tool": None}, "wrong type +tool"),
        ({"target": {"files": {"config.json": "abc"}}}, r"target\.files +expected dict\[str, FileDigest\], found"),
        ({"target": {"files": {}}}, r"missing key +target\.tensors +expected dict\[str, str\], found none"),
        ({"picture": {}}, r"missing key +picture\.sha256 +expected str, found none"),
        ({"more": 1}, "unknown key +more +expected no such key, found 1"),
        ({"head_kind": "tail"}, "wrong type +head_kind +expected one of masked_lm, .* or none, found 'tail'"),
        ({"verification": {"passed": 1}}, r"wrong type +verification\.passed +expected bool, found 1"),
        ({"verification": {}}, r"(?s)missing key +verification\.passed .*missing key +verification\.notes "),
    ):
        (folder / "conversion.json").write_text(json.dumps(record | change))
        with pytest.raises(ConfigurationError, match=problem):
            inspect(folder)
    (folder / "conversion.json").write_text('{"tool": "another", "source": {}, "target": {}}')
    with pytest.raises(ConfigurationError, match="not a record of albert-hub-bridge"):
        inspect(folder)
