"""Serve a stand-in for the Hugging Face Hub on the loopback interface, with repositories in memory.

It implements the part of the Hub's protocol that huggingface_hub 2.4 uses to create, push and load model repositories.
It is strict where the Hub is: an upload must match its SHA-256 and size, a commit its parent, and only the owner
writes. It shows what our client does, not that the real server accepts it.
"""

import base64
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote

import yaml


@dataclass
class Repo:
    private: bool = False
    gated: bool = False
    commits: list[tuple[str, str, dict[str, bytes]]] = field(default_factory=list)  # id, message, files

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    def files(self, revision: str = "main") -> dict[str, bytes] | None:
        return next((files for commit, _, files in self.commits if commit == self.resolve(revision)), None)

    def resolve(self, revision: str) -> str:
        return self.head if revision == "main" else revision

    def commit(self, message: str, files: dict[str, bytes]) -> str:
        names = sorted((name, hashlib.sha1(content).hexdigest()) for name, content in files.items())
        parent = self.head if self.commits else ""
        commit = hashlib.sha1(json.dumps([parent, message, names]).encode()).hexdigest()
        self.commits.append((commit, message, files))
        return commit


class HubServer(ThreadingHTTPServer):
    """The server. Tests read `repos` and `requests`, and set `refuse` to make it fail.

    The token `hf_USER` belongs to the user USER.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}  # LFS, by SHA-256
        self.requests: list[tuple[str, str]] = []
        # Called before each answer with method and path. Returns a status to answer with, "cut" to hang up, or None.
        self.refuse: Callable[[str, str], int | str | None] = lambda method, path: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def create(self, name: str, files: dict[str, bytes] | None = None, **access: bool) -> Repo:
        self.repos[name] = Repo(**access)
        self.repos[name].commit("initial commit", {".gitattributes": b"*.safetensors filter=lfs\n", **(files or {})})
        return self.repos[name]

    def environment(self, home: Path, user: str | None = "me") -> dict[str, str]:
        """Return the environment of a process that uses this server as the Hub and keeps its caches in `home`."""
        environment = {name: value for name, value in os.environ.items() if name[:3] != "HF_"}
        environment |= {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "0"}
        return environment | ({"HF_TOKEN": f"hf_{user}"} if user else {})


@contextmanager
def serving() -> Iterator[HubServer]:
    with HubServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Refused(Exception):
    """Answer with this status instead."""

    def __init__(self, status: int, message: str, code: str | None = None):
        super().__init__(status, message, code)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def handle_any(self) -> None:
        self.path, _, query = self.path.partition("?")
        self.path, self.query = unquote(self.path), parse_qs(query)
        self.server.requests.append((self.command, self.path))
        refusal = self.server.refuse(self.command, self.path)
        if refusal == "cut":
            if self.command in ("POST", "PUT"):
                self.rfile.read(1)  # in the middle of what the client sends
            self.close_connection = True
            self.connection.close()
            return
        body = self.read_body()
        try:
            if refusal is not None:
                raise Refused(refusal, "refused by the test")
            for method, pattern, answer in ROUTES:
                if self.command in method and (match := re.fullmatch(pattern, self.path)):
                    return answer(self, body, **match.groupdict())
            raise Refused(404, f"no such endpoint: {self.command} {self.path}")
        except Refused as refused:
            status, message, code = refused.args
            headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
            self.answer({"error": message}, status, headers)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        pass

    # Users and repositories

    @property
    def user(self) -> str | None:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return token.removeprefix("hf_") if scheme == "Bearer" and token.startswith("hf_") else None

    def repo(self, name: str, write: bool = False, content: bool = False) -> Repo:
        repo = self.server.repos.get(name)
        if repo is None or (repo.private and self.user != name.split("/")[0]):
            # Like the Hub, do not tell strangers which of the two it is.
            raise Refused(404 if self.user else 401, "Repository not found", "RepoNotFound")
        owner = self.user == name.split("/")[0]
        if write and not owner:
            raise Refused(403 if self.user else 401, "You don't have the required permissions")
        if content and repo.gated and not owner:
            raise Refused(403 if self.user else 401, "Access to this model is restricted", "GatedRepo")
        return repo

    def files(self, name: str, revision: str, content: bool = False) -> dict[str, bytes]:
        files = self.repo(name, content=content).files(revision)
        if files is None:
            raise Refused(404, "Invalid rev id", "RevisionNotFound")
        return files

    # Answers

    def whoami(self, body: bytes) -> None:
        if self.user is None:
            raise Refused(401, "Invalid username or password.")
        self.answer({"type": "user", "name": self.user, "orgs": [], "auth": {"type": "access_token"}})

    def create_repo(self, body: bytes) -> None:
        asked = json.loads(body)
        owner = asked.get("organization") or self.user
        if self.user is None:
            raise Refused(401, "Invalid username or password.")
        if owner != self.user:
            raise Refused(403, f"You don't have the rights to create a model under the namespace {owner!r}")
        name = f"{owner}/{asked['name']}"
        url = {"url": f"{self.server.url}/{name}", "name": name}
        if name in self.server.repos:
            return self.answer({**url, "error": "You already created this model repo"}, 409)
        self.server.create(name, private=asked.get("visibility") == "private" or bool(asked.get("private")))
        self.answer(url)

    def model_info(self, body: bytes, name: str, revision: str = "main") -> None:
        files = self.files(name, revision)
        repo = self.repo(name)
        siblings = [{"rfilename": path, "size": len(content)} for path, content in sorted(files.items())]
        about = {"private": repo.private, "gated": "auto" if repo.gated else False, "disabled": False, "tags": []}
        self.answer({"id": name, "modelId": name, "sha": repo.resolve(revision), "siblings": siblings, **about})

    def tree(self, body: bytes, name: str, revision: str) -> None:
        entries = []
        for path, content in sorted(self.files(name, revision).items()):
            lfs = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
            entry = {"type": "file", "path": path, "size": len(content), "oid": git_id(content)}
            entries.append(entry | ({"lfs": lfs} if is_lfs(path) else {}))
        self.answer(entries)

    def validate_yaml(self, body: bytes) -> None:
        text = json.loads(body)["content"]
        metadata = yaml.safe_load(text.split("---")[1]) if text.startswith("---\n") else None
        errors = [{"message": "has to begin with metadata"}] if not isinstance(metadata, dict) else []
        errors += [{"message": "license is missing"}] if metadata and "license" not in metadata else []
        self.answer({"errors": errors, "warnings": []}, 400 if errors else 200)

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        files = self.repo(name, write=True).files(revision)
        answers = []
        for entry in json.loads(body)["files"]:
            path = entry["path"]
            lfs = is_lfs(path)
            oid = (
                None if path not in files else hashlib.sha256(files[path]).hexdigest() if lfs else git_id(files[path])
            )
            mode = "lfs" if lfs else "regular"
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.answer({"files": answers})

    def lfs_batch(self, body: bytes, name: str) -> None:
        self.repo(name, write=True)
        objects = []
        for entry in json.loads(body)["objects"]:
            if entry["oid"] not in self.server.objects:
                upload = {"href": f"{self.server.url}/lfs/{entry['oid']}?size={entry['size']}"}
                entry["actions"] = {"upload": upload, "verify": {"href": f"{self.server.url}/lfs/verify"}}
            objects.append(entry)
        self.answer({"transfer": "basic", "objects": objects})

    def lfs_put(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid or len(body) != int(self.query["size"][0]):
            raise Refused(400, "the content is not what was announced")
        self.server.objects[oid] = body
        self.answer({})

    def lfs_verify(self, body: bytes) -> None:
        asked = json.loads(body)
        if len(self.server.objects.get(asked["oid"], b"")) != asked["size"]:
            raise Refused(404, "no such object of that size")
        self.answer({})

    def commit(self, body: bytes, name: str, revision: str) -> None:
        repo = self.repo(name, write=True)
        header, *operations = [json.loads(line) for line in body.splitlines()]
        if header["value"].get("parentCommit", repo.head) != repo.head:
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repo.files())
        for operation in operations:
            kind, value = operation["key"], operation["value"]
            if kind == "file":
                files[value["path"]] = base64.b64decode(value["content"], validate=True)
            elif kind == "lfsFile":
                content = self.server.objects.get(value["oid"])
                if content is None or len(content) != value["size"]:
                    raise Refused(400, f"{value['path']} was not uploaded")
                files[value["path"]] = content
            elif kind == "deletedFile" and value["path"] in files:
                del files[value["path"]]
            else:
                raise Refused(400, f"cannot do {kind} {value['path']}")
        commit = repo.commit(header["value"]["summary"], files)
        self.answer({"success": True, "commitOid": commit, "commitUrl": f"{self.server.url}/{name}/commit/{commit}"})

    def resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        files = self.files(name, revision, content=True)
        commit = self.repo(name).resolve(revision)
        if path not in files:
            raise Refused(404, "Entry not found", "EntryNotFound")
        content = files[path]
        etag = hub_id(path, content)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if is_lfs(path):
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))}
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return self.answer(content[start:], 206, headers)
        self.answer(content, headers=headers)


def is_lfs(path: str) -> bool:
    return path.endswith(".safetensors")


def hub_id(path: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if is_lfs(path) else git_id(content)


def git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


NAME = r"(?P<name>[^/]+/[^/]+)"
REVISION = r"(?P<revision>[^/]+)"
ROUTES = [
    ("GET", r"/api/whoami-v2", Handler.whoami),
    ("POST", r"/api/repos/create", Handler.create_repo),
    ("POST", r"/api/validate-yaml", Handler.validate_yaml),
    ("GET", rf"/api/(?:models|spaces)/{NAME}", Handler.model_info),
    ("GET", rf"/api/(?:models|spaces)/{NAME}/revision/{REVISION}", Handler.model_info),
    ("GET", rf"/api/(?:models|spaces)/{NAME}/tree/{REVISION}", Handler.tree),
    ("POST", rf"/api/(?:models|spaces)/{NAME}/preupload/{REVISION}", Handler.preupload),
    ("POST", rf"/api/(?:models|spaces)/{NAME}/commit/{REVISION}", Handler.commit),
    ("POST", rf"/(?:spaces/)?{NAME}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", Handler.lfs_put),
    ("POST", r"/lfs/verify", Handler.lfs_verify),
    ("GET HEAD", rf"/{NAME}/resolve/{REVISION}/(?P<path>.+)", Handler.resolve),
]
