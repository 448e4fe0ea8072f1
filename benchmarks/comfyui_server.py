"""Run ComfyUI headless on the CPU, and talk to it through its HTTP API."""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self


START_SECONDS = 600
ANSWER_SECONDS = 600  # while a model is loaded, the server may be silent
Workflow = dict[str, dict[str, Any]]  # ComfyUI's API format: class and complete inputs of each node, by id


class NodeError(Exception):
    """A workflow was refused, or a node failed; the message is the one that the node shows."""


class ComfyUI:
    """
    A running ComfyUI, closed at the end of a `with` block.

    Args:
        checkout: Checkout of ComfyUI, which is not changed.
        base: Folder with `custom_nodes`, `models`, `input` and `output`.
        python: Python with the requirements of ComfyUI.
        log: File for what ComfyUI prints.

    Raises:
        RuntimeError: ComfyUI does not answer.
    """

    def __init__(self, checkout: Path, base: Path, python: Path, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.base, self.log, self.url = base, log, f"http://127.0.0.1:{port}"
        command = [str(python), "main.py", "--cpu", "--port", str(port), "--base-directory", str(base)]
        command += ["--disable-auto-launch", "--disable-api-nodes", "--database-url", "sqlite:///:memory:"]
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        with log.open("w") as stream:
            self._process = subprocess.Popen(
                command, cwd=checkout, env=environment, stdout=stream, stderr=subprocess.STDOUT
            )

    def __enter__(self) -> Self:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            try:
                self.system = self.get("/system_stats")["system"]
                return self
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.5)
        self.__exit__(None, None, None)
        raise RuntimeError(f"ComfyUI did not start; the end of {self.log}:\n{self.log.read_text()[-2000:]}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(timeout=60)

    def get(self, path: str) -> Any:
        """Return the JSON at a path."""
        with urllib.request.urlopen(self.url + path, timeout=ANSWER_SECONDS) as response:
            return json.load(response)

    def post(self, path: str, content: dict[str, Any]) -> Any:
        """Send JSON to a path and return the answer, `None` if it is empty."""
        request = urllib.request.Request(self.url + path, json.dumps(content).encode())
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as response:
            text = response.read()
        return json.loads(text) if text else None

    def queue(self, workflow: Workflow, extra_data: dict[str, Any] | None = None) -> str:
        """
        Queue a workflow and return the id of its run.

        Raises:
            NodeError: ComfyUI refuses the workflow before it runs.
        """
        try:
            return self.post("/prompt", {"prompt": workflow, "extra_data": extra_data or {}})["prompt_id"]
        except urllib.error.HTTPError as error:
            raise NodeError(error.read().decode()) from error

    def wait(self, run: str, seconds: float = 3600) -> dict[str, list[dict[str, Any]]]:
        """
        Wait for a run, and return what its nodes show, by node.

        Raises:
            NodeError: A node failed, or the run was interrupted.
            TimeoutError: The run takes longer than `seconds`.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if entry := self.get(f"/history/{run}").get(run):
                return _outputs(entry)
            time.sleep(0.2)
        raise TimeoutError(f"The workflow ran longer than {seconds:g} s.")

    def run(self, workflow: Workflow, extra_data: dict[str, Any] | None = None) -> dict[str, list[dict[str, Any]]]:
        """Run a workflow, see `queue` and `wait`."""
        return self.wait(self.queue(workflow, extra_data))

    def file_of(self, saved: dict[str, str]) -> Path:
        """Return the path of a saved file that a node shows."""
        return self.base / saved["type"] / saved["subfolder"] / saved["filename"]


def _outputs(entry: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the saved files of each node in an entry of the history."""
    for event, details in entry["status"]["messages"]:
        if event == "execution_error":
            raise NodeError(f"{details['node_type']}: {details['exception_message'].strip()}")
        if event == "execution_interrupted":
            raise NodeError(f"{details['node_type']}: interrupted")
    return {node: [*shown.get("images", []), *shown.get("latents", [])] for node, shown in entry["outputs"].items()}
