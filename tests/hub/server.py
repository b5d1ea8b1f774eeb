"""A small Hub on the loopback address: repositories in memory, with the requests of `huggingface_hub`, without Xet.

It keeps every commit, hands out large files by LFS, and records what was asked for. Some repositories are gated, refuse
an upload, or get a push in the middle of somebody's load.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

Files = dict[str, bytes]
LARGE = (".safetensors", ".bin", ".pt", ".pth", ".png")


def blob_id(content: bytes) -> str:
    """Return git's name of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def file_id(path: str, content: bytes) -> str:
    """Return the name of a file's content: SHA-256 with LFS, else git's."""
    return hashlib.sha256(content).hexdigest() if path.endswith(LARGE) else blob_id(content)


@dataclass
class Repository:
    """Commits of a repository, the newest last, its branches and its pull requests."""

    commits: dict[str, Files] = field(default_factory=dict)
    titles: list[str] = field(default_factory=list)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    on_read: Callable[[str], None] | None = None  # called with each path that is downloaded, before it is answered

    def commit(self, files: Files, title: str = "", ref: str = "main") -> str:
        """Add a commit of all files to a branch, and return its name."""
        sha = hashlib.sha1(f"{len(self.commits)}{title}{sorted(files)}".encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.titles.append(title)
        self.refs[ref] = sha
        return sha

    def find(self, revision: str) -> str | None:
        """Return the name of the commit of a revision."""
        return self.refs.get(revision, revision if revision in self.commits else None)

    def files(self, revision: str = "main") -> Files:
        """Return the files of a revision."""
        return self.commits[self.find(revision) or ""]


@dataclass
class Hub:
    """State of the Hub."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    stored: dict[tuple[str, str], bytes] = field(default_factory=dict)  # LFS objects by repository and SHA-256
    requests: list[str] = field(default_factory=list)  # "METHOD /path"
    refused_uploads: int = 0  # LFS objects that will be refused
    endpoint: str = ""

    def add(self, name: str, folder: Path | None = None, **options: bool) -> Repository:
        """Add a repository, with the files of a folder in its first commit."""
        files = {} if folder is None else read_files(folder)
        self.repositories[name] = repository = Repository(**options)
        repository.commit(files, "initial commit")
        return repository


def read_files(folder: Path) -> Files:
    """Return the content of every file of a folder, by its path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class _Missing(Exception):  # noqa: N818  (an answer, not an error)
    """What is asked for is not there: a header names it."""

    def __init__(self, status: int, code: str, message: str, commit: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Code": code, "X-Error-Message": message}
        if commit is not None:  # a client then remembers that the commit has no such file
            self.headers["X-Repo-Commit"] = commit


class _Handler(BaseHTTPRequestHandler):
    """Answers requests of `huggingface_hub`."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Write nothing to standard error."""

    def _answer(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _handle(self) -> None:
        address = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._read_chunks()
        self.hub.requests.append(f"{self.command} {unquote(address.path)}")
        try:
            self._route(address.path, parse_qs(address.query), body)
        except _Missing as missing:
            self._answer({"error": str(missing)}, missing.status, missing.headers)

    do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815

    def _read_chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _route(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        parts = [unquote(part) for part in path.strip("/").split("/")]  # a revision may hold slashes, as %2F
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif parts[0] == "store":
            self._store("/".join(parts[1:3]), parts[3], body)
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._offer("/".join(parts[:2]).removesuffix(".git"), json.loads(body))
        elif parts[:2] == ["api", "models"]:
            self._api("/".join(parts[2:4]), parts[4:], query, body)
        else:  # OWNER/NAME/resolve/REVISION/PATH
            self._download("/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    def _create(self, asked: dict) -> None:
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if name in self.hub.repositories:
            self._answer({"url": f"{self.hub.endpoint}/{name}", "error": "exists"}, 409)
            return
        self.hub.add(name, private=bool(asked.get("private")) or asked.get("visibility") == "private")
        self._answer({"url": f"{self.hub.endpoint}/{name}", "id": name})

    def _repository(self, name: str) -> Repository:
        repository = self.hub.repositories.get(name)
        if repository is None:
            raise _Missing(404, "RepoNotFound", "Repository not found")
        return repository

    def _api(self, name: str, rest: list[str], query: dict[str, list[str]], body: bytes) -> None:
        repository = self._repository(name)
        action = rest[0] if rest else "revision"
        revision = rest[1] if len(rest) > 1 else "main"
        if action == "branch":
            repository.refs.setdefault(revision, repository.refs["main"])
            self._answer({})
            return
        sha = repository.find(revision)
        if sha is None:
            raise _Missing(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = repository.commits[sha]
        if action == "revision":
            siblings = [{"rfilename": path} for path in files]
            self._answer({"id": name, "sha": sha, "siblings": siblings, "private": repository.private, "tags": []})
        elif action == "tree":
            self._list("/".join(rest[2:]), files, "recursive" in query)
        elif action == "preupload":
            self._preupload(json.loads(body)["files"], files)
        elif action == "commit":
            self._commit(name, repository, revision, files, body, "create_pr" in query)
        else:
            raise _Missing(404, "EntryNotFound", f"no such request: {action}")

    def _list(self, folder: str, files: Files, recursive: bool) -> None:
        prefix = f"{folder}/" if folder else ""
        inside = {path: content for path, content in files.items() if path.startswith(prefix)}
        if folder and not inside:
            raise _Missing(404, "EntryNotFound", f"{folder} does not exist")
        entries: dict[str, dict] = {}
        for path, content in inside.items():
            head, *deeper = path.removeprefix(prefix).split("/")
            if deeper:
                entries[prefix + head] = {"type": "directory", "path": prefix + head, "oid": "0"}
            if not deeper or recursive:
                entries[path] = {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
                if path.endswith(LARGE):
                    entries[path]["lfs"] = {"oid": file_id(path, content), "size": len(content), "pointerSize": 1}
        self._answer(list(entries.values()))

    def _preupload(self, asked: list[dict], files: Files) -> None:
        answers = []
        for one in asked:
            path, mode = one["path"], "lfs" if one["path"].endswith(LARGE) else "regular"
            oid = file_id(path, files[path]) if path in files else None
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._answer({"files": answers})

    def _offer(self, name: str, asked: dict) -> None:
        objects = []
        for one in asked["objects"]:
            upload = {"href": f"{self.hub.endpoint}/store/{name}/{one['oid']}", "header": {}}
            actions = {} if (name, one["oid"]) in self.hub.stored else {"actions": {"upload": upload}}
            objects.append({"oid": one["oid"], "size": one["size"], **actions})
        self._answer({"transfer": "basic", "objects": objects})

    def _store(self, name: str, oid: str, body: bytes) -> None:
        if self.hub.refused_uploads:
            self.hub.refused_uploads -= 1
            raise _Missing(403, "StorageRefused", "The upload was interrupted")
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.stored[name, oid] = body
        self._answer({})

    def _commit(
        self, name: str, repository: Repository, revision: str, files: Files, body: bytes, create_pr: bool
    ) -> None:
        files, title = dict(files), ""
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                title = value["summary"]
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[name, value["oid"]]
            else:
                del files[value["path"]]
        number = sum(ref.startswith("refs/pr/") for ref in repository.refs) + 1
        sha = repository.commit(files, title, f"refs/pr/{number}" if create_pr else revision)
        answer = {"commitUrl": f"{self.hub.endpoint}/{name}/commit/{sha}", "commitOid": sha, "hookOutput": ""}
        if create_pr:
            answer["pullRequestUrl"] = f"{self.hub.endpoint}/{name}/discussions/{number}"
        self._answer(answer)

    def _download(self, name: str, revision: str, path: str) -> None:
        repository = self._repository(name)
        if repository.gated:
            raise _Missing(403, "GatedRepo", f"Access to model {name} is restricted.")
        if repository.on_read is not None:
            repository.on_read(path)
        sha = repository.find(revision)
        if sha is None:
            raise _Missing(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        content = repository.commits[sha].get(path)
        if content is None:
            raise _Missing(404, "EntryNotFound", "Entry not found", sha)
        headers = {"ETag": f'"{file_id(path, content)}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        self._answer(content, headers=headers)


@contextmanager
def run_hub() -> Iterator[Hub]:
    """Run a Hub in threads of this process, and yield its state."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
