"""Boots a real ComfyUI server with this pack linked into it, and stops it again.

Knows the host's command line and how to tell that it is up, dead or unable to load the pack. Uses
the standard library only: dev.py starts it before any package is there. The conversation with a
running server is in `client.py`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

PACK_ROOT = Path(__file__).resolve().parents[1]
PACK_NAME = "ComfyUI-Stream-T1"
START_TIMEOUT_SECONDS = 240  # 5 to 25 s as a rule; a cold disk and a virus scanner take minutes
LOG_TAIL_LINES = 15


class ServerError(RuntimeError):
    """The server cannot start, or cannot load the pack. The message is one for the user."""


@dataclass(frozen=True)
class ComfyServer:
    """A running server. `base` is its base directory: models, input, output, temp, custom_nodes."""

    url: str
    base: Path
    log_path: Path
    process: subprocess.Popen[bytes]

    @property
    def output(self) -> Path:
        return self.base / "output"

    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def get(self, path: str) -> object:
        """The JSON that GET `path` answers."""
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, payload: object) -> int:
        """Sends `payload` as JSON, and gives the status code."""
        request = urllib.request.Request(
            self.url + path,
            data=json.dumps(payload).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def port_is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def link_pack(base: Path) -> Path:
    """Makes `base`/custom_nodes/ComfyUI-Stream-T1 lead to this clone, and nothing else."""
    link = base / "custom_nodes" / PACK_NAME
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.exists() and link.resolve() == PACK_ROOT:
        return link
    if os.path.lexists(link):
        link.unlink()
    if sys.platform == "win32":  # a junction needs no privilege, a symbolic link does
        import _winapi

        _winapi.CreateJunction(str(PACK_ROOT), str(link))
    else:
        link.symlink_to(PACK_ROOT, target_is_directory=True)
    return link


def start_server(
    python: str | Path,
    host: Path,
    base: Path,
    log_path: Path,
    port: int | None = None,
    front_end_root: Path | None = None,
) -> ComfyServer:
    """Boots the ComfyUI in `host` on the CPU and returns once it answers.

    `base` is made if missing and gets the link to the pack. `port` None takes a free one.
    `front_end_root` serves another front end than the installed one. Raises `ServerError` when it
    dies, hangs, or cannot import the pack.
    """
    if port is not None and port_is_taken(port):
        raise ServerError(
            f"Port {port} is taken by another program; leave --port out to use a free one."
        )
    link_pack(base)
    port = port or free_port()
    command = [str(python), "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port)]
    command += ["--disable-api-nodes", "--base-directory", str(base.resolve())]
    command += ["--database-url", "sqlite:///:memory:"]
    if front_end_root is not None:
        command += ["--front-end-root", str(front_end_root.resolve())]
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=host,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
        )
    server = ComfyServer(f"http://127.0.0.1:{port}", base, log_path, process)
    try:
        _wait_until_up(server)
        _check_pack_loaded(server)
    except BaseException:  # Ctrl-C included: no server is left behind
        server.stop()
        raise
    return server


def _wait_until_up(server: ComfyServer) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            code = server.process.returncode
            raise ServerError(f"ComfyUI stopped at start (exit code {code}).\n{_tail(server)}")
        try:
            server.get("/system_stats")
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.3)
    raise ServerError(f"ComfyUI did not answer in {START_TIMEOUT_SECONDS} s.\n{_tail(server)}")


def _check_pack_loaded(server: ComfyServer) -> None:
    """The host only logs a pack that fails to import, and runs on without it."""
    log = server.log().splitlines()
    if not any("IMPORT FAILED" in line and PACK_NAME in line for line in log):
        return
    end = next(
        (n for n, line in enumerate(log) if "Cannot import" in line and PACK_NAME in line), len(log)
    )
    why = "\n".join("  " + line for line in log[max(0, end - LOG_TAIL_LINES) : end + 1])
    raise ServerError(f"ComfyUI could not import the pack. From {server.log_path}:\n{why}")


def _tail(server: ComfyServer) -> str:
    last = server.log().splitlines()[-LOG_TAIL_LINES:]
    return "\n".join([f"Last lines of {server.log_path}:", *("  " + line for line in last)])
