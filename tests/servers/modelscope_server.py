"""A small ModelScope on 127.0.0.1, with the part of the API that the client uses for downloads.

with ModelScopeServer() as modelscope:
    modelscope.add_model("user/albert", {"config.json": "{}"})
    subprocess.run(command, env=client_environment(home, modelscope))
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from tests.servers.local_server import LocalServer, Refusal, Request, Response, json_response, ranged_response


class ModelScopeServer(LocalServer):
    """ModelScope, for downloads only. All models are public."""

    # fmt: off
    routes = (
        ("GET", r"/api/v1/models/(?P<model>[^/]+/[^/]+)/repo/files", "list_files"),
        ("GET", r"/api/v1/models/(?P<model>[^/]+/[^/]+)/repo",       "download"),
    )
    # fmt: on

    def __init__(self) -> None:
        super().__init__()
        self.models: dict[tuple[str, str], dict[str, bytes]] = {}

    def environment(self, home: Path) -> dict[str, str]:
        return {"MODELSCOPE_ENDPOINT": self.url, "MODELSCOPE_CACHE": str(home / "modelscope")}

    def add_model(self, name: str, files: Mapping[str, bytes | str], revision: str = "master") -> None:
        """Add a revision of `user/model`."""
        contents = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
        with self.lock:
            self.models[name, revision] = contents

    def refuse(self, refusal: Refusal) -> Response:
        answer = {"Code": 10_010_000_000 + refusal.status, "Message": refusal.message, "Success": False}
        return json_response(answer, refusal.status, refusal.headers)

    def _files(self, request: Request, model: str) -> dict[str, bytes]:
        revision = request.query.get("Revision", "master")
        if (model, revision) not in self.models:
            raise Refusal(404, f"There is no revision {revision} of {model}.")
        return self.models[model, revision]

    def list_files(self, request: Request, model: str) -> Response:
        files = [
            {
                "Name": path.rpartition("/")[2],
                "Path": path,
                "Type": "blob",
                "Size": len(content),
                "Sha256": hashlib.sha256(content).hexdigest(),
            }
            for path, content in sorted(self._files(request, model).items())
        ]
        return json_response({"Code": 200, "Success": True, "Message": "success", "Data": {"Files": files}})

    def download(self, request: Request, model: str) -> Response:
        files, path = self._files(request, model), request.query["FilePath"]
        if path not in files:
            raise Refusal(404, f"There is no file {path} in {model}.")
        return ranged_response(request, files[path], {})
