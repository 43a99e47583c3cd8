"""A small W&B server on loopback: it keeps runs and their history, resumes them, and hands out the trials of a sweep.

It can be made to fail: `get` and `post` are statuses that every request then gets; None means that it never answers.
One that is `forgetful` says of no run that it knows it, and appends what it is sent, as some compatible servers do.
"""

from __future__ import annotations

import http.server
import json
import re
import socketserver
import threading
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Run:
    """What the server holds of one run. history: line number -> row, so that a line sent again is no second one."""

    config: dict[str, Any] = field(default_factory=dict)
    sweep: str | None = None
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    complete: bool = False

    def rows(self) -> list[dict[str, Any]]:
        return [self.history[line] for line in sorted(self.history)]


class FakeWandb(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Context manager; `url` is its address."""

    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        *,
        get: int | None = 200,
        post: int | None = 200,
        trials: list[dict[str, Any]] | None = None,
        forgetful: bool = False,
    ):
        self.get, self.post, self.forgetful = get, post, forgetful
        self.runs: dict[str, Run] = {}
        self.sweep_config = ""
        self.trials = list(trials or [])
        self.released = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> FakeWandb:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()

    def environment(self) -> dict[str, str]:
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": "k" * 40, "WANDB_MODE": "online"}

    def query(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        """Answer what the client asks for in GraphQL."""
        if operation == "RunResumeStatus":
            run = None if self.forgetful else self.runs.get(given["name"])
            return {"model": {**_PROJECT, "bucket": _bucket(given["name"], run)}}
        if operation == "UpsertBucket":
            name = given["name"]
            run = self.runs.setdefault(name, Run())
            run.config |= json.loads(given.get("config") or "{}")
            run.sweep = given.get("sweep") or run.sweep
            return {"upsertBucket": {"bucket": _bucket(name, run), "inserted": True}}
        if operation == "CreateRunFiles":
            files = [{"name": file, "uploadUrl": f"{self.url}/upload"} for file in given["files"]]
            return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}
        if operation == "UpsertSweep":
            self.sweep_config = given["config"]
            return {"upsertSweep": {"sweep": {"name": "sweep1", "project": _PROJECT}, "configValidationWarnings": []}}
        if operation == "SweepWithRuns":
            sweep = {"id": "s", "name": "sweep1", "state": "RUNNING", "config": self.sweep_config, "controller": "{}"}
            return {"project": {"sweep": {**sweep, "runs": {"edges": []}}}}
        if operation == "CreateAgent":
            return {"createAgent": {"agent": {"id": "a"}}}
        if operation == "Heartbeat":
            busy = json.loads(given.get("runState") or "{}")
            return {"agentHeartbeat": {"agent": {"id": "a"}, "commands": json.dumps([] if busy else [self._next()])}}
        if operation == "Viewer":
            return {"viewer": {"id": "u", "entity": "e", "username": "u", "flags": "{}", "teams": {"edges": []}}}
        return {}

    def _next(self) -> dict[str, Any]:
        if not self.trials:
            return {"type": "exit"}
        return self.trials.pop(0)

    def stream(self, name: str, sent: dict[str, Any]) -> None:
        """Take what a client uploads of a run."""
        run = self.runs.setdefault(name, Run())
        for file, part in (sent.get("files") or {}).items():
            lines = [json.loads(line) for line in part["content"] if line.strip().startswith("{")]
            if file == "wandb-history.jsonl":
                run.history |= dict(enumerate(lines, len(run.history) if self.forgetful else part["offset"]))
            elif file == "wandb-summary.json" and lines:
                run.summary = lines[-1]
        run.complete = run.complete or bool(sent.get("complete"))


_PROJECT = {"id": "p", "name": "robustlab", "entity": {"id": "e", "name": "e"}}


def _bucket(name: str, run: Run | None) -> dict[str, Any] | None:
    if run is None:
        return None
    tail = run.rows()[-1:]
    return {
        "id": name, "name": name, "displayName": name, "description": "", "config": json.dumps(run.config),
        "project": _PROJECT, "sweepName": run.sweep, "historyLineCount": len(run.history), "eventsLineCount": 0,
        "logLineCount": 0, "historyTail": json.dumps([json.dumps(row) for row in tail]), "eventsTail": "[]",
        "summaryMetrics": json.dumps(run.summary), "tags": [], "wandbConfig": json.dumps({"t": 1}),
    }  # fmt: skip


class _Handler(http.server.BaseHTTPRequestHandler):
    server: FakeWandb
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(self.server.get, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer: dict[str, Any] = {}
        if self.server.post == 200 and self.path == "/graphql":
            sent = json.loads(body)
            operation = re.search(r"(?:query|mutation)\s+(\w+)", sent["query"])
            assert operation is not None
            answer = {"data": self.server.query(operation[1], sent.get("variables") or {})}
        elif self.server.post == 200 and self.path.endswith("/file_stream"):
            self.server.stream(self.path.split("/")[-2], json.loads(body))
        self._answer(self.server.post, answer)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(self.server.post, {})

    def _answer(self, status: int | None, content: dict[str, Any]) -> None:
        if status is None:
            self.server.released.wait(120)
            return
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass
