"""A stand-in for the Hugging Face hub: repositories in memory, behind its HTTP interface."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub(ThreadingHTTPServer):
    """The repositories by name, each with its commits, and the requests that came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, list[dict[str, bytes]]] = {}
        self.requests: list[str] = []
        self.refuses_writing = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit_hash(self, repo: str, number: int) -> str:
        return hashlib.sha1(f"{repo} {number}".encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: Any) -> None:
        self.server.requests.append(f"{self.command} {self.path}")

    def answer(self, status: int, body: Any = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.refuses_writing:
            return self.answer(403, {"error": "You have no write access"})
        if self.path == "/api/repos/create":
            values = json.loads(data)
            name = f"{values['organization']}/{values['name']}"
            self.server.repos.setdefault(name, [])
            return self.answer(200, {"url": f"{self.server.url}/{name}"})
        if self.path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        owner, name, action = self.path.removeprefix("/api/models/").split("/")[:3]
        repo = f"{owner}/{name}"
        if action == "preupload":
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(data)["files"]
            ]
            return self.answer(200, {"files": files})
        lines = [json.loads(line) for line in data.splitlines()]
        commits = self.server.repos[repo]
        commits.append(
            {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
        )
        return self.answer(
            200,
            {
                "success": True,
                "commitOid": self.server.commit_hash(repo, len(commits)),
                "commitUrl": f"{self.server.url}/{repo}/commit/main",
                "hookOutput": "",
            },
        )

    def do_GET(self) -> None:
        repo, _, rest = self.path.lstrip("/").partition("/resolve/")
        commits = self.server.repos.get(repo, [])
        if not commits:
            return self.answer(404, X_Error_Code="RepoNotFound")
        revision, _, file = rest.partition("/")
        hashes = [self.server.commit_hash(repo, n + 1) for n in range(len(commits))]
        if revision != "main" and revision not in hashes:
            return self.answer(404, X_Error_Code="RevisionNotFound")
        number = len(commits) - 1 if revision == "main" else hashes.index(revision)
        data = commits[number].get(file)
        if data is None:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=hashes[number])
        etag = f'"{hashlib.sha1(data).hexdigest()}"'
        return self.answer(200, data, ETag=etag, X_Repo_Commit=hashes[number])

    do_HEAD = do_GET


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Run a hub until the block ends."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()
