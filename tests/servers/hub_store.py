"""The data of the Hub: repositories with commits, branches and files. Also the validation of model cards."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from typing import Any

import yaml  # type: ignore[import-untyped]

from tests.servers.local_server import Refusal


# The LFS patterns in the .gitattributes of a new repository. Binary and large files are in LFS too.
LFS_PATTERNS = ("*.bin", "*.gz", "*.h5", "*.model", "*.msgpack", "*.npz", "*.onnx", "*.pt", "*.safetensors", "*.zip")
LARGE = 10 * 2**20
GIT_ATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS).encode()

LICENSES = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "gpl-3.0", "unknown", "other")


@dataclass(frozen=True)
class File:
    """A file of a commit.

    Args:
        content: The content of the file itself, even if Git has a pointer.
        lfs: Whether it is in Git LFS.
    """

    content: bytes = field(repr=False)
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self) -> bytes:
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        return text.encode()

    @property
    def oid(self) -> str:
        """The SHA-1 of the blob in Git."""
        blob = self.pointer if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid

    def describe(self, path: str) -> dict[str, Any]:
        pointer = {"lfs": {"oid": self.sha256, "size": len(self.content), "pointerSize": len(self.pointer)}}
        entry = {"type": "file", "path": path, "oid": self.oid, "size": len(self.content)}
        return {**entry, **(pointer if self.lfs else {})}


@dataclass(frozen=True)
class Commit:
    """A state of a repository."""

    sha: str
    parent: str | None
    title: str
    description: str
    date: datetime
    files: Mapping[str, File] = field(repr=False)


@dataclass
class Repo:
    """A model repository.

    Args:
        id: `namespace/name`.
        private: Whether only the owner can see it.
        gated: Whether only the owner can download files.
        commits: Commits by SHA, oldest first.
        refs: The SHA of `refs/heads/main`, `refs/tags/v1`, `refs/pr/1`.
        objects: Uploaded LFS objects by SHA-256, also with wrong content until they are verified.
    """

    id: str
    private: bool = False
    gated: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict, repr=False)

    def add_commit(self, ref: str, files: Mapping[str, File], title: str, description: str = "") -> Commit:
        parent = self.refs.get(ref)
        state = [parent, title, len(self.commits), {path: file.oid for path, file in sorted(files.items())}]
        sha = hashlib.sha1(json.dumps([self.id, *state]).encode()).hexdigest()
        commit = Commit(sha, parent, title, description, datetime.now(UTC), dict(files))
        self.commits[sha] = commit
        self.refs[ref] = sha
        self.objects |= {file.sha256: file.content for file in files.values() if file.lfs}
        return commit

    def ref(self, revision: str) -> str | None:
        """Return the full name of a branch, tag or pull request."""
        return next(
            (ref for ref in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision) if ref in self.refs), None
        )

    def commit(self, revision: str) -> Commit:
        sha = self.refs.get(self.ref(revision) or "", revision)
        if sha not in self.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[sha]

    def has_object(self, oid: str) -> bool:
        """Return whether LFS has this object, with the right content."""
        return oid in self.objects and hashlib.sha256(self.objects[oid]).hexdigest() == oid

    def apply(self, files: dict[str, File], key: str, value: dict[str, Any]) -> None:
        """Apply one line of a commit request to the files."""
        path = value["path"]
        if key == "file":
            files[path] = File(base64.b64decode(value["content"]), lfs=False)
        elif key == "lfsFile":
            if not self.has_object(value["oid"]):
                raise Refusal(400, "LFS pointer pointed to a file that does not exist")
            files[path] = File(self.objects[value["oid"]], lfs=True)
        elif key in ("deletedFile", "deletedFolder"):
            folder = path.rstrip("/") + "/"
            gone = [name for name in files if name == path or (key == "deletedFolder" and name.startswith(folder))]
            if not gone:
                raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
            for name in gone:
                del files[name]
        else:
            raise Refusal(400, f'"key" must be one of [header, file, lfsFile, deletedFile, deletedFolder], not {key}')

    def history(self, revision: str) -> list[Commit]:
        """Return the commits of a revision, newest first."""
        commits = [self.commit(revision)]
        while parent := commits[-1].parent:
            commits.append(self.commits[parent])
        return commits


def is_lfs(path: str, size: int, sample: bytes) -> bool:
    """Return whether the Hub stores a file in LFS, because of its name, its size or its first bytes."""
    name = path.rpartition("/")[2]
    return any(fnmatch(name, pattern) for pattern in LFS_PATTERNS) or size > LARGE or b"\0" in sample[:512]


def card_metadata(content: str) -> dict[str, Any]:
    """Return the YAML at the top of a model card."""
    found = re.match(r"---\r?\n(.*?)\r?\n---(\r?\n|$)", content, re.DOTALL)
    metadata = yaml.safe_load(found[1]) if found else None
    return metadata if isinstance(metadata, dict) else {}


def card_problems(content: str) -> list[str]:
    """Return the problems of a model card that the Hub refuses. It checks more keys, but our cards do not have them."""
    try:
        metadata = json.loads(json.dumps(card_metadata(content), default=str))
    except yaml.YAMLError as error:
        return [f"YAML parsing error: {error}"]
    problems = []
    if (found := metadata.get("license", LICENSES[0])) not in LICENSES:
        problems.append(f'"license" must be one of [{", ".join(LICENSES)}], not {found}')
    if found == "other" and "license_name" not in metadata:
        problems.append('"license_name" is required')
    problems += [f'"{key}" must be a string' for key in ("pipeline_tag", "library_name") if not _is(str, metadata, key)]
    problems += [f'"{key}" must be an array' for key in ("tags", "model-index") if not _is(list, metadata, key)]
    if problems:
        return problems
    for i, model in enumerate(metadata.get("model-index", [])):
        problems += _missing(model, f"model-index[{i}]", "name", "results")
        for j, result in enumerate(model.get("results", [])):
            place = f"model-index[{i}].results[{j}]"
            problems += _missing(result, place, "task.type", "dataset.name", "dataset.type", "metrics")
            for k, metric in enumerate(result.get("metrics", [])):
                problems += _missing(metric, f"{place}.metrics[{k}]", "type", "value")
    return problems


def _is(kind: type, metadata: dict[str, Any], key: str) -> bool:
    return isinstance(metadata.get(key, kind()), kind)


def _missing(content: dict[str, Any], place: str, *names: str) -> list[str]:
    problems = []
    for name in names:
        outer, _, inner = name.rpartition(".")
        if inner not in (content.get(outer, {}) if outer else content):
            problems.append(f'"{place}.{name}" is required')
    return problems
