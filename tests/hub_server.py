"""A stand-in for the Hugging Face Hub on 127.0.0.1: the part of its HTTP interface that huggingface_hub uses for models.

Large files go its way too: by an upload address of their own, and back by a redirect
to another host, which is never told the login.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_aTokenThatNobodyMayPrint"
LARGE = (".safetensors",)


@dataclass
class Repository:
    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        told = json.dumps([len(self.commits), branch, sorted(files)]).encode()
        sha = hashlib.sha1(told).hexdigest()
        self.commits[sha] = files
        self.refs[branch] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        sha = self.refs.get(revision, revision)
        return sha if sha in self.commits else None


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.cut = False
        """Whether large files cannot be fetched."""
        self.listed_size: int | None = None
        """What the server says of the size of large files, where that is not the true one."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def commit(self, name: str, files: dict[str, bytes], branch: str = "main", **options: Any) -> str:
        repository = self.repositories.setdefault(name, Repository(**options))
        return repository.commit(branch, files)


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


def object_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    do_GET = do_POST = do_PUT = do_HEAD

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            for pattern, act in ROUTES:
                if found := re.fullmatch(pattern, f"{self.command} {path}"):
                    act(self, *found.groups())
                    return
            raise Refused(404, "", "no such page")
        except Refused as refused:
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
            self._send(refused.status, b"{}", headers)

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    @property
    def _logged_in(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repository(self, name: str) -> Repository:
        repository = self.server.repositories.get(name)
        if repository is None or (repository.private and not self._logged_in):
            raise Refused(404 if self._logged_in else 401, "RepoNotFound", "Repository not found")
        return repository

    def _files(self, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        repository = self._repository(name)
        sha = repository.resolve(revision)
        if sha is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha, repository.commits[sha]

    def _writing(self) -> None:
        if not self._logged_in:
            raise Refused(401, "", "Invalid username or password.")

    def info(self, name: str, revision: str | None) -> None:
        sha, files = self._files(name, revision or "main")
        siblings = [{"rfilename": path} for path in files]
        self._json({"_id": "1", "id": name, "modelId": name, "sha": sha, "siblings": siblings, "tags": []})

    def tree(self, name: str, revision: str) -> None:
        listed = []
        for path, content in self._files(name, revision)[1].items():
            size = len(content) if self.server.listed_size is None else self.server.listed_size
            entry: dict[str, Any] = {"type": "file", "path": path, "size": size, "oid": object_id(content)}
            if path.endswith(LARGE):
                entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": size, "pointerSize": 130}
            listed.append(entry)
        self._json(listed)

    def resolve(self, name: str, revision: str, path: str) -> None:
        sha, files = self._files(name, revision)
        if path not in files:
            raise Refused(404, "EntryNotFound", "Entry not found")
        content = files[path]
        headers = {"X-Repo-Commit": sha}
        if path.endswith(LARGE):
            digest = hashlib.sha256(content).hexdigest()
            self.server.large[digest] = content
            size = len(content) if self.server.listed_size is None else self.server.listed_size
            headers |= {"X-Linked-Size": str(size), "X-Linked-ETag": f'"{digest}"'}
            self._send(
                302,
                b"",
                headers | {"Location": f"http://localhost:{self.server.server_address[1]}/large/{digest}"},
            )
        else:
            self._send(200, content, headers | {"ETag": f'"{object_id(content)}"'})

    def get_large(self, digest: str) -> None:
        assert "Authorization" not in self.headers
        if self.server.cut:
            raise Refused(400, "", "cut")
        self._send(200, self.server.large[digest], {"ETag": f'"{digest}"'})

    def put_large(self, digest: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == digest
        self.server.large[digest] = self.body
        self._send(200, b"")

    def create(self) -> None:
        self._writing()
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.server.repositories:
            self._json({"url": f"{self.server.address}/{name}", "error": "it is there"}, 409)
            return
        self.server.commit(name, {".gitattributes": b"*.safetensors filter=lfs\n"})
        self._json({"url": f"{self.server.address}/{name}"})

    def branch(self, name: str, branch: str) -> None:
        self._writing()
        repository = self._repository(name)
        if branch in repository.refs:
            raise Refused(409, "", "Reference already exists")
        repository.refs[branch] = repository.refs["main"]
        self._json({})

    def validate(self) -> None:
        content = json.loads(self.body)["content"]
        assert content.startswith("---\nlibrary_name: flam_rl\n")
        self._json({"errors": [], "warnings": []})

    def preupload(self, name: str, revision: str) -> None:
        self._writing()
        self._repository(name)
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(self.body)["files"]
        ]
        self._json({"files": files})

    def batch(self, name: str) -> None:
        self._writing()
        self._repository(name)
        objects = [
            {
                **{key: asked[key] for key in ("oid", "size")},
                "actions": {"upload": {"href": f"{self.server.address}/large/{asked['oid']}"}},
            }
            for asked in json.loads(self.body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def commit(self, name: str, revision: str) -> None:
        self._writing()
        files = dict(self._files(name, revision)[1])
        for line in self.body.decode().splitlines():
            step = json.loads(line)
            value = step["value"]
            if step["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif step["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
            elif step["key"] == "deletedFile":
                del files[value["path"]]
        sha = self._repository(name).commit(revision, files)
        self._json({"commitUrl": f"{self.server.address}/{name}/commit/{sha}", "commitOid": sha})


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = [
    (rf"GET /api/models/{NAME}", lambda handler, name: handler.info(name, None)),
    (rf"GET /api/models/{NAME}/revision/(.+)", Handler.info),
    (rf"GET /api/models/{NAME}/tree/([^/]+)", Handler.tree),
    (rf"(?:GET|HEAD) /{NAME}/resolve/([^/]+)/(.+)", Handler.resolve),
    (r"(?:GET|HEAD) /large/(\w+)", Handler.get_large),
    (r"PUT /large/(\w+)", Handler.put_large),
    (r"POST /api/repos/create", Handler.create),
    (rf"POST /api/models/{NAME}/branch/(.+)", Handler.branch),
    (r"POST /api/validate-yaml", Handler.validate),
    (rf"POST /api/models/{NAME}/preupload/(.+)", Handler.preupload),
    (rf"POST /{NAME}.git/info/lfs/objects/batch", Handler.batch),
    (rf"POST /api/models/{NAME}/commit/(.+)", Handler.commit),
]
