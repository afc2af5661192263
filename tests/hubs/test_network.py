"""Convert, push and verify the real albert_base_en_uncased: `python -m pytest -m network tests/hubs/test_network.py`.

The preset comes from the real Kaggle. The push goes to a Hub on 127.0.0.1, so nothing is published.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from conversion.recipes import GOLDEN_TOLERANCE, read_entries
from tests.servers.hub_server import HubServer
from tests.servers.local_server import run_client


@pytest.fixture
def kaggle() -> None:
    """Skip if Kaggle cannot be reached. An error status counts as reached."""
    try:
        urllib.request.urlopen("https://www.kaggle.com", timeout=20).close()
    except urllib.error.HTTPError:
        pass
    except OSError as error:
        pytest.skip(f"Kaggle cannot be reached: {error}")


@pytest.mark.network
@pytest.mark.usefixtures("kaggle")
def test_published_preset_is_converted_pushed_and_verified(tmp_path: Path) -> None:
    entry = read_entries("keras")["albert_base_en_uncased"]
    assert entry.golden is not None
    with HubServer() as hub:
        # The proxies, login and Kaggle cache of the user, but no settings of Hugging Face.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        own = ",".join(filter(None, ["127.0.0.1,127.0.0.2", os.environ.get("no_proxy")]))
        environment = {**inherited, **hub.environment(tmp_path), "no_proxy": own, "NO_PROXY": own}
        codes = run_client(
            """
            import contextlib, io
            from albert_hub_bridge.cli import app
            result = []
            with contextlib.redirect_stdout(io.StringIO()):
                for arguments in commands:
                    try:
                        app(arguments)
                    except SystemExit as stop:
                        result.append(stop.code)
            """,
            environment,
            commands=[
                ["convert", entry.name, "hf://user/albert", "--to", "transformers"],
                ["verify", "hf://user/albert"],
            ],
        )
        assert codes == [0, 0]
        record = json.loads(hub.files("user/albert")["conversion.json"])
        assert record["source"]["handle"] == entry.handle.rpartition("/")[0]
        assert record["source"]["revision"] == entry.handle.rpartition("/")[2]
        assert (record["parameters"], record["verification"]["passed"]) == (entry.parameters, True)
        sequence, pooled = run_client(
            """
            import torch
            from transformers import AutoModel
            inputs = {"input_ids": token_ids, "token_type_ids": segment_ids, "attention_mask": padding_mask}
            with torch.inference_mode():
                outputs = AutoModel.from_pretrained("user/albert")(**{k: torch.tensor(v) for k, v in inputs.items()})
            result = [outputs.last_hidden_state[0, 0, :5].tolist(), outputs.pooler_output[0, :5].tolist()]
            """,
            environment,
            **{name: entry.golden[name] for name in ("token_ids", "segment_ids", "padding_mask")},
        )
    assert sequence == pytest.approx(entry.golden["sequence_output"], abs=GOLDEN_TOLERANCE)
    assert pooled == pytest.approx(entry.golden["pooled_output"], abs=GOLDEN_TOLERANCE)
