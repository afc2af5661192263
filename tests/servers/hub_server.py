"""A small Hugging Face Hub on 127.0.0.1, with the API that huggingface_hub, transformers and keras_hub use.

    with HubServer() as hub:
        hub.add_repo("user/model", {"config.json": "{}"})
        subprocess.run(command, env=client_environment(home, hub))
        hub.files("user/model")

It has only models, and no Xet. Clients use Git LFS if HF_HUB_DISABLE_XET is set before they start.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import pytest
from packaging.version import Version

from tests.servers.hub_store import GIT_ATTRIBUTES, Commit, File, Repo, card_metadata, card_problems, is_lfs
from tests.servers.local_server import LocalServer, Refusal, Request, Response, json_response, ranged_response


needs_hub_for_cards = pytest.mark.skipif(
    Version(metadata.version("huggingface_hub")) < Version("2.2"),
    reason="older clients send cards to huggingface.co, whatever HF_ENDPOINT says",
)


class HubServer(LocalServer):
    """The Hub.

    Args:
        user: The only user, with write access to `user/...`.
        token: The token of the user. All others are refused.
        part_size: LFS files above this size in bytes are uploaded in parts of it. No parts if 0.
    """

    # fmt: off
    routes = (
        ("GET",  r"/api/whoami-v2",                                                        "whoami"),
        ("POST", r"/api/repos/create",                                                     "create_repo"),
        ("POST", r"/api/validate-yaml",                                                    "validate_yaml"),
        ("GET",  r"/api/models/(?P<repo_id>[^/]+/[^/]+)(/revision/(?P<revision>[^/]+))?",  "model_info"),
        ("GET",  r"/api/models/(?P<repo_id>[^/]+/[^/]+)/auth-check(?P<write>/write)?",     "check_access"),
        ("GET",  r"/api/models/(?P<repo_id>.+)/refs",                                      "list_refs"),
        ("GET",  r"/api/models/(?P<repo_id>.+)/discussions",                               "list_discussions"),
        ("GET",  r"/api/models/(?P<repo_id>.+)/commits/(?P<revision>[^/]+)",               "list_commits"),
        ("GET",  r"/api/models/(?P<repo_id>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)(/(?P<path>.+))?", "list_tree"),
        ("POST", r"/api/models/(?P<repo_id>.+)/paths-info/(?P<revision>[^/]+)",            "describe_paths"),
        ("POST", r"/api/models/(?P<repo_id>.+)/branch/(?P<name>[^/]+)",                    "create_branch"),
        ("POST", r"/api/models/(?P<repo_id>.+)/tag/(?P<revision>[^/]+)",                   "create_tag"),
        ("POST", r"/api/models/(?P<repo_id>.+)/preupload/(?P<revision>[^/]+)",             "preupload"),
        ("POST", r"/api/models/(?P<repo_id>.+)/commit/(?P<revision>[^/]+)",                "create_commit"),
        ("POST", r"/(?P<repo_id>.+)\.git/info/lfs/objects/batch",                          "lfs_batch"),
        ("POST", r"/(?P<repo_id>.+)\.git/info/lfs/objects/complete/(?P<oid>[0-9a-f]{64})", "lfs_complete"),
        ("POST", r"/(?P<repo_id>.+)\.git/info/lfs/objects/verify",                         "lfs_verify"),
        ("HEAD", r"/(?P<repo_id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)",    "resolve"),
        ("GET",  r"/(?P<repo_id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)",    "resolve"),
        ("PUT",  r"/storage/(?P<repo_id>.+)/(?P<oid>[0-9a-f]{64})",                        "upload"),
        ("GET",  r"/storage/(?P<repo_id>.+)/(?P<oid>[0-9a-f]{64})",                        "download"),
    )
    # fmt: on

    def __init__(self, user: str = "user", token: str = "hf_token_of_the_tests", part_size: int = 0) -> None:
        super().__init__()
        self.user, self.token, self.part_size = user, token, part_size
        self.repos: dict[str, Repo] = {}
        self._parts: dict[tuple[str, int], bytes] = {}

    # For tests

    def environment(self, home: Path) -> dict[str, str]:
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home / "huggingface"),
            "HF_TOKEN": self.token,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }

    def add_repo(
        self, repo_id: str, files: Mapping[str, bytes | str], *, private: bool = False, gated: bool = False
    ) -> str:
        """Create a repository with one commit, and return its SHA."""
        with self.lock:
            self.repos[repo_id] = Repo(repo_id, private, gated)
            return self.add_commit(repo_id, files, "initial commit")

    def add_commit(
        self,
        repo_id: str,
        files: Mapping[str, bytes | str],
        title: str = "Commit of another user",
        revision: str = "main",
    ) -> str:
        """Add a commit of another user to a branch, and return its SHA."""
        with self.lock:
            repo, ref = self.repos[repo_id], f"refs/heads/{revision}"
            before = repo.commit(revision).files if ref in repo.refs else {}
            contents = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
            added = {path: File(content, is_lfs(path, len(content), content)) for path, content in contents.items()}
            return repo.add_commit(ref, {**before, **added}, title).sha

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """Return the files of a revision."""
        with self.lock:
            return {path: file.content for path, file in sorted(self.repos[repo_id].commit(revision).files.items())}

    def commits(self, repo_id: str, revision: str = "main") -> list[Commit]:
        """Return the commits of a revision, newest first."""
        with self.lock:
            return self.repos[repo_id].history(revision)

    # Permissions

    def _user(self, request: Request) -> str | None:
        authorization = request.headers.get("authorization")
        if authorization not in (None, f"Bearer {self.token}"):
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.user if authorization else None

    def _repo(self, request: Request, repo_id: str, *, write: bool = False) -> Repo:
        user, repo = self._user(request), self.repos.get(repo_id)
        owner = user == repo_id.partition("/")[0]
        if repo is None or (repo.private and not owner):  # the Hub gives the same response for both
            if user is None:
                raise Refusal(401, "Invalid username or password.", "RepoNotFound")
            raise Refusal(404, "Repository not found", "RepoNotFound")
        if write and user is None:
            raise Refusal(401, "Invalid username or password.")
        if write and not owner:
            raise Refusal(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")
        return repo

    def refuse(self, refusal: Refusal) -> Response:
        codes = {"X-Error-Code": refusal.code} if refusal.code else {}
        headers = {"X-Error-Message": refusal.message, **codes, **refusal.headers}
        return json_response({"error": refusal.message}, refusal.status, headers)

    # Repositories

    def whoami(self, request: Request) -> Response:
        if (user := self._user(request)) is None:
            raise Refusal(401, "Invalid username or password.")
        return json_response(
            {"type": "user", "name": user, "fullname": user, "orgs": [], "auth": {"type": "access_token"}}
        )

    def create_repo(self, request: Request) -> Response:
        asked, user = request.json(), self._user(request)
        namespace = asked.get("organization") or user
        repo_id = f"{namespace}/{asked['name']}"
        place = {"url": f"{self.url}/{repo_id}", "name": repo_id, "id": repo_id}
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        if namespace != user:
            raise Refusal(403, f'You don\'t have the rights to create a model under the namespace "{namespace}"')
        if repo_id in self.repos:
            return json_response({"error": "You already created this model repo", **place}, 409)
        self.add_repo(repo_id, {".gitattributes": GIT_ATTRIBUTES}, private=asked.get("visibility") == "private")
        return json_response(place)

    def model_info(self, request: Request, repo_id: str, revision: str) -> Response:
        repo = self._repo(request, repo_id)
        commit = repo.commit(revision or "main")
        text = commit.files["README.md"].content.decode() if "README.md" in commit.files else ""
        card = {} if card_problems(text) else card_metadata(text)
        siblings = []
        for path, file in sorted(commit.files.items()):
            blob = file.describe(path)
            pointer = {"lfs": {**blob["lfs"], "sha256": blob["lfs"]["oid"]}} if file.lfs else {}
            details = {"size": blob["size"], "blobId": blob["oid"], **pointer} if "blobs" in request.query else {}
            siblings.append({"rfilename": path, **details})
        info: dict[str, Any] = {
            "_id": hashlib.md5(repo_id.encode()).hexdigest()[:24],
            "id": repo_id,
            "modelId": repo_id,
            "author": repo_id.partition("/")[0],
            "sha": commit.sha,
            "private": repo.private,
            "gated": "auto" if repo.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "createdAt": _date(repo.history(commit.sha)[-1].date),
            "lastModified": _date(commit.date),
            "tags": card.get("tags", []),
            "cardData": card,
            "siblings": siblings,
        }
        shown = {key: card[key] for key in ("library_name", "pipeline_tag") if key in card}
        return json_response({**info, **shown})

    def check_access(self, request: Request, repo_id: str, write: str) -> Response:
        self._repo(request, repo_id, write=bool(write))
        return json_response({})

    def list_refs(self, request: Request, repo_id: str) -> Response:
        listed: dict[str, list[dict[str, str]]] = {"branches": [], "converts": [], "tags": [], "pullRequests": []}
        kinds = {"refs/heads/": "branches", "refs/tags/": "tags", "refs/pr/": "pullRequests"}
        for ref, sha in self._repo(request, repo_id).refs.items():
            prefix = next(prefix for prefix in kinds if ref.startswith(prefix))
            listed[kinds[prefix]].append({"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": sha})
        return json_response(listed)

    def list_discussions(self, request: Request, repo_id: str) -> Response:
        """List the pull requests, all of which are open."""
        repo, listed = self._repo(request, repo_id), []
        for ref, sha in repo.refs.items() if request.query.get("type") == "pull_request" else ():
            if ref.startswith("refs/pr/"):
                commit = repo.commits[sha]
                place = {"num": int(ref.rpartition("/")[2]), "repo": {"name": repo_id, "type": "model"}}
                place |= {"title": commit.title, "createdAt": _date(commit.date), "author": {"name": self.user}}
                listed.append({**place, "status": "open", "isPullRequest": True})
        return json_response({"discussions": listed, "count": len(listed), "start": 0})

    def list_commits(self, request: Request, repo_id: str, revision: str) -> Response:
        commits = self._repo(request, repo_id).history(revision)
        common = {"authors": [{"user": self.user}]}
        return json_response(
            [
                {"id": c.sha, "title": c.title, "message": c.description, "date": _date(c.date), **common}
                for c in commits
            ]
        )

    def list_tree(self, request: Request, repo_id: str, revision: str, path: str) -> Response:
        files = self._repo(request, repo_id).commit(revision).files
        folder = f"{path}/" if path else ""
        inside = {name: file for name, file in files.items() if name.startswith(folder)}
        if path and not inside:
            raise Refusal(404, f'{path} does not exist on "{revision}"', "EntryNotFound")
        recursive = request.query.get("recursive", "").lower() == "true"
        shown = {name: f.describe(name) for name, f in inside.items() if recursive or "/" not in name[len(folder) :]}
        for name in inside:
            parents = [parent.as_posix() for parent in Path(name[len(folder) :]).parents][:-1]
            for parent in parents if recursive else parents[-1:]:
                oid = hashlib.sha1((repo_id + folder + parent).encode()).hexdigest()
                shown[folder + parent] = {"type": "directory", "path": folder + parent, "oid": oid, "size": 0}
        return json_response([shown[name] for name in sorted(shown)])

    def describe_paths(self, request: Request, repo_id: str, revision: str) -> Response:
        files = self._repo(request, repo_id).commit(revision).files
        paths = parse_qs(request.body.decode()).get("paths", [])
        return json_response([files[path].describe(path) for path in paths if path in files])

    def create_branch(self, request: Request, repo_id: str, name: str) -> Response:
        repo = self._repo(request, repo_id, write=True)
        return self._add_ref(repo, f"refs/heads/{name}", request.json().get("startingPoint", "main"))

    def create_tag(self, request: Request, repo_id: str, revision: str) -> Response:
        repo = self._repo(request, repo_id, write=True)
        return self._add_ref(repo, f"refs/tags/{request.json()['tag']}", revision)

    def _add_ref(self, repo: Repo, ref: str, revision: str) -> Response:
        if ref in repo.refs:
            raise Refusal(409, f"Reference already exists: {ref}")
        repo.refs[ref] = repo.commit(revision).sha
        return json_response({})

    # Pushing

    def validate_yaml(self, request: Request) -> Response:
        content = request.json()["content"]
        problems = card_problems(content)
        if request.headers.get("accept") == "text/plain":  # ModelCard.validate shows the response unchanged
            return Response(400 if problems else 200, {"Content-Type": "text/plain"}, "\n".join(problems).encode())
        missing = [] if content.startswith("---") else [{"message": "empty or missing yaml metadata in repo card"}]
        answer = {"errors": [{"message": problem} for problem in problems], "warnings": missing}
        return json_response({**answer, "error": "; ".join(problems)} if problems else answer, 400 if problems else 200)

    def preupload(self, request: Request, repo_id: str, revision: str) -> Response:
        create_pr = "create_pr" in request.query
        commit = self._repo(request, repo_id, write=not create_pr).commit(revision)
        modes = []
        for asked in request.json()["files"]:
            path, existing = asked["path"], commit.files.get(asked["path"])
            mode = "lfs" if is_lfs(path, asked["size"], base64.b64decode(asked["sample"])) else "regular"
            known = {"oid": existing.etag} if existing else {}
            modes.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **known})
        return json_response({"commitOid": commit.sha, "files": modes})

    def lfs_batch(self, request: Request, repo_id: str) -> Response:
        repo, answers = self._repo(request, repo_id, write=True), []
        for asked in request.json()["objects"]:
            oid, size = asked["oid"], asked["size"]
            wanted: dict[str, Any] = {"oid": oid, "size": size}
            if not repo.has_object(oid):
                wanted["actions"] = {
                    "upload": self._upload_action(repo_id, oid, size),
                    "verify": {"href": f"{self.url}/{repo_id}.git/info/lfs/objects/verify"},
                }
            answers.append(wanted)
        return json_response({"transfer": "multipart" if self.part_size else "basic", "objects": answers})

    def _upload_action(self, repo_id: str, oid: str, size: int) -> dict[str, Any]:
        place = f"{self.storage_url}/storage/{repo_id}/{oid}"
        if not 0 < self.part_size < size:
            return {"href": place}
        numbers = range(1, -(-size // self.part_size) + 1)
        parts = {str(number): f"{place}?part={number}" for number in numbers}
        complete = f"{self.url}/{repo_id}.git/info/lfs/objects/complete/{oid}"
        return {"href": complete, "header": {"chunk_size": str(self.part_size), **parts}}

    def upload(self, request: Request, repo_id: str, oid: str) -> Response:
        if request.authorized:  # like S3: the signature in the URL is the authorization
            raise Refusal(400, "Only one auth mechanism allowed")
        if "part" in request.query:
            self._parts[oid, int(request.query["part"])] = request.body
        else:
            self.repos[repo_id].objects[oid] = request.body
        return Response(200, {"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'})

    def lfs_complete(self, request: Request, repo_id: str, oid: str) -> Response:
        parts = [self._parts[oid, part["partNumber"]] for part in request.json()["parts"]]
        self.repos[repo_id].objects[oid] = b"".join(parts)
        return json_response({"success": True})

    def lfs_verify(self, request: Request, repo_id: str) -> Response:
        repo, oid = self._repo(request, repo_id, write=True), request.json()["oid"]
        if not repo.has_object(oid):
            repo.objects.pop(oid, None)
            raise Refusal(400, f"The uploaded content does not have the sha256 {oid}")
        return json_response({"success": True})

    def create_commit(self, request: Request, repo_id: str, revision: str) -> Response:
        create_pr = "create_pr" in request.query
        repo = self._repo(request, repo_id, write=not create_pr)
        base, ref = repo.commit(revision), repo.ref(revision)
        if ref is None or ref.startswith("refs/tags/"):
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        (_, header), *changes = [json.loads(line).values() for line in request.body.splitlines()]
        if not create_pr and header.get("parentCommit", base.sha) != base.sha:  # a pull request begins at it
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(base.files)
        for key, value in changes:
            repo.apply(files, key, value)
        answer: dict[str, Any] = {"success": True, "hookOutput": ""}
        if create_pr:
            number = 1 + sum(name.startswith("refs/pr/") for name in repo.refs)
            ref = f"refs/pr/{number}"
            repo.refs[ref] = base.sha
            answer["pullRequestUrl"] = f"{self.url}/{repo_id}/discussions/{number}"
        commit = repo.add_commit(ref, files, header["summary"], header["description"])
        return json_response(
            {**answer, "commitOid": commit.sha, "commitUrl": f"{self.url}/{repo_id}/commit/{commit.sha}"}
        )

    # Pulling

    def resolve(self, request: Request, repo_id: str, revision: str, path: str) -> Response:
        repo = self._repo(request, repo_id)
        if repo.gated and self._user(request) != repo_id.partition("/")[0]:
            status = 403 if request.authorized else 401
            raise Refusal(status, f"Access to model {repo_id} is restricted.", "GatedRepo")
        commit = repo.commit(revision)
        headers = {"X-Repo-Commit": commit.sha}
        if (file := commit.files.get(path)) is None:
            raise Refusal(404, "Entry not found", "EntryNotFound", headers)
        headers |= {"ETag": f'"{file.etag}"', "Content-Disposition": f'inline; filename="{Path(path).name}";'}
        if not file.lfs:
            return ranged_response(request, file.content, headers)
        place = f"{self.storage_url}/storage/{quote(repo_id)}/{file.sha256}"
        linked = {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content)), "Location": place}
        return Response(302, {**headers, **linked}, f"Found. Redirecting to {place}".encode())

    def download(self, request: Request, repo_id: str, oid: str) -> Response:
        if request.authorized:
            raise Refusal(400, "Only one auth mechanism allowed")
        return ranged_response(request, self.repos[repo_id].objects[oid], {"ETag": f'"{oid}"'})


def _date(date: datetime) -> str:
    return date.strftime("%Y-%m-%dT%H:%M:%S.000Z")
