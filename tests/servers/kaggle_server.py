"""A small Kaggle on 127.0.0.1, with the part of the models API that kagglehub and keras_hub use.

    with KaggleServer() as kaggle:
        kaggle.add_model("user/albert/keras/tiny", {"config.json": "{}"})
        subprocess.run(command, env=client_environment(home, kaggle))
        kaggle.files("user/albert/keras/tiny")

kagglehub has fixed addresses. With KAGGLE_API_ENVIRONMENT=LOCALHOST the address is http://localhost, port 80, which
only root can open, and only once. But kagglehub uses `http_proxy`, so this server is that proxy. It can have any free
port, tests can run in parallel, and the client needs no patches.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import re
import secrets
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.servers.local_server import LocalServer, Refusal, Request, Response, json_response, ranged_response


BUNDLE = ".bundle.tar.gz"  # the name of a version's archive in the storage


@dataclass
class Model:
    """A model with variations, which have versions.

    Args:
        private: Whether only the owner can see it.
        variations: Versions by `(framework, variation)`, from version 1. Each maps paths to contents.
    """

    private: bool
    variations: dict[tuple[str, str], list[dict[str, bytes]]] = field(default_factory=dict)


@dataclass
class Blob:
    """A file during its upload, with the content so far."""

    name: str
    size: int
    content: bytes = field(default=b"", repr=False)


class KaggleServer(LocalServer):
    """Kaggle.

    Args:
        user: The only user, with write access to `user/...`.
        token: The token of the user, also valid as the password. All others are refused.
    """

    # fmt: off
    routes = (
        ("POST", r"/api/v1/api\.v1\.DiagnosticsService/Hello",                       "hello"),
        ("POST", r"/api/v1/models\.ModelApiService/GetModel",                        "get_model"),
        ("POST", r"/api/v1/models\.ModelApiService/CreateModel",                     "create_model"),
        ("POST", r"/api/v1/models\.ModelApiService/GetModelInstance",                "get_variation"),
        ("POST", r"/api/v1/models\.ModelApiService/CreateModelInstance",             "create_variation"),
        ("POST", r"/api/v1/models\.ModelApiService/CreateModelInstanceVersion",      "create_version"),
        ("POST", r"/api/v1/models\.ModelApiService/ListModelInstanceVersionFiles",   "list_files"),
        ("POST", r"/api/v1/models\.ModelApiService/DownloadModelInstanceVersion",    "redirect_to_file"),
        ("POST", r"/api/v1/blobs\.BlobApiService/StartBlobUpload",                   "start_upload"),
        ("PUT",  r"/storage/uploads/(?P<token>[0-9a-f]+)",                           "upload"),
        ("GET",  r"/storage/models/(?P<place>[^/]+/[^/]+/[^/]+/[^/]+)/(?P<version>\d+)/(?P<path>.+)", "download"),
    )
    # fmt: on

    def __init__(self, user: str = "user", token: str = "KGAT_token_of_the_tests") -> None:
        super().__init__()
        self.user, self.token = user, token
        self.models: dict[str, Model] = {}
        self.blobs: dict[str, Blob] = {}

    # For tests

    def environment(self, home: Path) -> dict[str, str]:
        return {
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            "http_proxy": self.url,
            "KAGGLE_API_TOKEN": self.token,
            "KAGGLE_CONFIG_DIR": str(home / "kaggle"),
            "KAGGLEHUB_CACHE": str(home / "kagglehub"),
        }

    def add_model(self, handle: str, files: Mapping[str, bytes | str], *, private: bool = False) -> int:
        """Add a version of `owner/model/framework/variation`, and return its number."""
        model, framework, variation = _split(handle)
        contents = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
        with self.lock:
            self.models.setdefault(model, Model(private))
            versions = self.models[model].variations.setdefault((framework, variation), [])
            versions.append(contents)
            return len(versions)

    def files(self, handle: str, version: int | None = None) -> dict[str, bytes]:
        """Return the files of a version; the latest by default."""
        with self.lock:
            versions = self._versions(handle)
            return dict(sorted(versions[version - 1 if version else -1].items()))

    def versions(self, handle: str) -> int:
        """Return the number of versions."""
        with self.lock:
            return len(self._versions(handle))

    def _versions(self, handle: str) -> list[dict[str, bytes]]:
        model, framework, variation = _split(handle)
        return self.models[model].variations[framework, variation]

    # Permissions

    def _user(self, request: Request) -> str | None:
        basic = base64.b64encode(f"{self.user}:{self.token}".encode()).decode()
        authorization = request.headers.get("authorization")
        if authorization not in (None, f"Bearer {self.token}", f"Basic {basic}"):
            raise Refusal(401, "Unauthenticated")
        return self.user if authorization else None

    def _model(self, request: Request) -> tuple[str, Model]:
        asked, user = request.json(), self._user(request)
        name = f"{asked['ownerSlug']}/{asked['modelSlug']}"
        model = self.models.get(name)
        if user is None and (model is None or model.private):
            raise Refusal(401, "Unauthenticated")
        if model is None or (model.private and user != asked["ownerSlug"]):  # Kaggle gives the same response for both
            raise Refusal(403, "Permission 'models.get' was denied")
        return name, model

    def _asked_versions(self, request: Request) -> list[dict[str, bytes]]:
        asked, (_, model) = request.json(), self._model(request)
        key = _framework(asked["framework"]), asked["instanceSlug"]
        if key not in model.variations:
            raise Refusal(404, "Not found")
        return model.variations[key]

    def _asked_version(self, request: Request) -> tuple[str, dict[str, bytes]]:
        asked, versions = request.json(), self._asked_versions(request)
        number = asked["versionNumber"]
        if not 0 < number <= len(versions):
            raise Refusal(404, "Not found")
        parts = (asked["ownerSlug"], asked["modelSlug"], _framework(asked["framework"]), asked["instanceSlug"], number)
        return "/".join(map(str, parts)), versions[number - 1]

    def refuse(self, refusal: Refusal) -> Response:
        return json_response({"code": refusal.status, "message": refusal.message}, refusal.status, refusal.headers)

    def hello(self, request: Request) -> Response:
        if (user := self._user(request)) is None:
            raise Refusal(401, "Unauthenticated")
        return json_response({"userName": user})

    # Downloading

    def get_model(self, request: Request) -> Response:
        name, model = self._model(request)
        owner, _, slug = name.partition("/")
        return json_response({"id": 1, "ref": name, "author": owner, "slug": slug, "isPrivate": model.private})

    def get_variation(self, request: Request) -> Response:
        asked, versions = request.json(), self._asked_versions(request)
        shown = {"slug": asked["instanceSlug"], "framework": asked["framework"], "versionNumber": len(versions)}
        return json_response({"id": 1, "versionId": len(versions), **shown})

    def list_files(self, request: Request) -> Response:
        _, files = self._asked_version(request)
        size, start = request.json().get("pageSize", 20), int(request.json().get("pageToken") or 0)
        page = [{"name": path, "size": len(files[path])} for path in sorted(files)[start : start + size]]
        following = str(start + size) if start + size < len(files) else ""
        return json_response({"files": page, "nextPageToken": following})

    def redirect_to_file(self, request: Request) -> Response:
        place, files = self._asked_version(request)
        path = request.json().get("path", BUNDLE)
        if path not in (BUNDLE, *files):
            raise Refusal(404, "Not found")
        return Response(302, {"Location": f"{self.storage_url}/storage/models/{quote(place)}/{quote(path)}"})

    def download(self, request: Request, place: str, version: str, path: str) -> Response:
        files = self.files(place, int(version))
        content = _bundle(files) if path == BUNDLE else files[path]
        md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
        return ranged_response(request, content, {"x-goog-hash": f"md5={md5}"})

    # Uploading. Requests that change something are refused with the status 200 and an error in the body.

    def create_model(self, request: Request) -> Response:
        asked = request.json()
        name = f"{asked['ownerSlug']}/{asked['slug']}"
        if self._user(request) is None:
            raise Refusal(401, "Unauthenticated")
        if asked["ownerSlug"] != self.user:
            raise Refusal(403, "Permission 'models.create' was denied")
        if name in self.models:
            return _error(409, f"A model with the slug {asked['slug']} already exists")
        self.models[name] = Model(asked.get("isPrivate", False))
        return json_response({"id": 1, "ref": name, "url": f"{self.url}/models/{name}"})

    def create_variation(self, request: Request) -> Response:
        body = request.json()["body"]
        return self._add_version(request, body["framework"], body["instanceSlug"], new=True)

    def create_version(self, request: Request) -> Response:
        return self._add_version(request, request.json()["framework"], request.json()["instanceSlug"], new=False)

    def _add_version(self, request: Request, framework: str, variation: str, *, new: bool) -> Response:
        name, model = self._model(request)
        if self._user(request) != name.partition("/")[0]:
            raise Refusal(403, "Permission 'models.update' was denied")
        key = _framework(framework), variation
        if new and key in model.variations:
            return _error(409, f"A variation with the slug {variation} already exists")
        if not new and key not in model.variations:
            return _error(404, f"There is no variation with the slug {variation}")
        try:
            files = self._collect(request.json()["body"])
        except Refusal as refusal:
            return _error(refusal.status, refusal.message)
        model.variations.setdefault(key, []).append(files)
        number = len(model.variations[key])
        ref = f"{name}/{key[0]}/{variation}/{number}"
        return json_response({"id": number, "ref": ref, "url": f"{self.url}/models/{ref}"})

    def _collect(self, folder: dict[str, Any], prefix: str = "") -> dict[str, bytes]:
        files = {}
        for file in folder.get("files", []):
            blob = self.blobs.get(file["token"])
            if blob is None or len(blob.content) != blob.size:
                raise Refusal(400, "A file was not uploaded, or not wholly")
            files[prefix + blob.name] = blob.content
        for inner in folder.get("directories", []):
            files |= self._collect(inner, f"{prefix}{inner['name']}/")
        return files

    def start_upload(self, request: Request) -> Response:
        if self._user(request) is None:
            raise Refusal(401, "Unauthenticated")
        asked, token = request.json(), secrets.token_hex(16)
        self.blobs[token] = Blob(asked["name"], asked.get("contentLength", 0))
        return json_response({"token": token, "createUrl": f"{self.storage_url}/storage/uploads/{token}"})

    def upload(self, request: Request, token: str) -> Response:
        """Append a range, like the resumable uploads of Google Cloud Storage."""
        blob = self.blobs[token]
        if span := re.fullmatch(r"bytes (\d+)-\d+/\d+", request.headers.get("content-range", "")):
            blob.content = blob.content[: int(span[1])] + request.body
        if len(blob.content) == blob.size:
            return Response(200)
        return Response(308, {"Range": f"bytes=0-{len(blob.content) - 1}"} if blob.content else {})


def _split(handle: str) -> tuple[str, str, str]:
    owner, model, framework, variation = handle.split("/")
    return f"{owner}/{model}", _framework(framework), variation


def _framework(name: str) -> str:
    """Return the name of a framework in handles: `keras` for `MODEL_FRAMEWORK_KERAS`."""
    return name.removeprefix("MODEL_FRAMEWORK_").replace("_", "").lower()


def _error(code: int, message: str) -> Response:
    return json_response({"error": message, "errorCode": code})


def _bundle(files: Mapping[str, bytes]) -> bytes:
    # Without a timestamp, because a resumed download expects the same bytes.
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(archive.getvalue(), mtime=0)
