"""Serve one dataset on the loopback interface to a client of the Hub."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve_dataset(folder: Path, name: str = "org/clips") -> Iterator[str]:
    """Yield the address of a Hub with one public dataset. It refuses `org/gated` and does not know any other."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
            path = self.path.split("?")[0]
            resolved = path.removeprefix(f"/datasets/{name}/resolve/{COMMIT}/")
            if path.startswith("/api/datasets/org/gated"):
                self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
            elif path in (f"/api/datasets/{name}", f"/api/datasets/{name}/revision/main"):
                siblings = [{"rfilename": file} for file in files]
                self.answer(200, json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode())
            elif path.startswith(f"/api/datasets/{name}/tree/{COMMIT}"):
                entries = [
                    {"type": "file", "path": file, "size": (folder / file).stat().st_size, "oid": "0" * 40}
                    for file in files
                ]
                self.answer(200, json.dumps(entries).encode())
            elif path.startswith(f"/api/datasets/{name}/revision/"):
                self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
            elif resolved in files:
                data = (folder / resolved).read_bytes()
                self.answer(
                    200,
                    data,
                    {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'},  # noqa: S324
                )
            else:
                self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})

        def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
