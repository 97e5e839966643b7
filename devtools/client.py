"""Talks to a running ComfyUI server the way a pipeline does: post a prompt, listen, fetch the
result.

Knows the HTTP and websocket messages and nothing about the pack. Needs aiohttp, which every ComfyUI
has.
"""

from __future__ import annotations

import asyncio
import json
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

Prompt = dict[str, dict]
OnMessage = Callable[[dict], None]

_ENDINGS = ("execution_success", "execution_error", "execution_interrupted")
_PREVIEW, _PREVIEW_WITH_METADATA = 1, 4


class PromptRejected(ValueError):
    """The server refused the prompt. `body` is its answer; the message names each node's fault."""

    def __init__(self, prompt: Prompt, body: dict) -> None:
        self.body = body
        lines = [
            body["error"]["message"] + (f": {body['error'].get('details') or ''}").rstrip(": ")
        ]
        for node_id, refusal in (body.get("node_errors") or {}).items():
            node = f"node {node_id} ({refusal['class_type']})"
            lines += [
                f"{node}: {fault['message']}: {fault['details']}" for fault in refusal["errors"]
            ]
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class Run:
    """A finished run: the server's history entry, and every message it sent about it, in order.

    A binary preview is kept as `{"type": "preview", "data": {"image": bytes, "metadata": dict}}`.
    """

    prompt_id: str
    history: dict
    messages: list[dict]

    @property
    def outputs(self) -> dict[str, dict]:
        """Node id -> its `ui` output."""
        return self.history["outputs"]

    @property
    def error(self) -> dict | None:
        """The data of `execution_error`, None when nothing failed."""
        return next((m["data"] for m in self.messages if m["type"] == "execution_error"), None)

    @property
    def interrupted(self) -> bool:
        return any(m["type"] == "execution_interrupted" for m in self.messages)

    def of_type(self, kind: str) -> list[dict]:
        """The data of all messages of one type, such as `progress` or one of the pack's own."""
        return [m["data"] for m in self.messages if m["type"] == kind]


def run_prompt(
    url: str,
    prompt: Prompt,
    on_message: OnMessage | None = None,
    timeout_seconds: float = 600,
    workflow: str | None = None,
) -> Run:
    """Queues an API-format `prompt`, and returns when it has ended in success, error or interrupt.

    `on_message` sees each message as it comes. `workflow` is the id of the editor's workflow that
    the prompt is said to come from. Raises `PromptRejected`, or TimeoutError.
    """
    work = _run_prompt(url, prompt, on_message or (lambda message: None), workflow)
    return asyncio.run(asyncio.wait_for(work, timeout_seconds))


def interrupt(url: str) -> None:
    """Stops what is running. Made to be called from `on_message` too, hence not async."""
    request = urllib.request.Request(
        url + "/interrupt", data=b"{}", headers={"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=60).close()


async def _run_prompt(url: str, prompt: Prompt, on_message: OnMessage, workflow: str | None) -> Run:
    client_id = uuid.uuid4().hex
    queued: dict = {"prompt": prompt, "client_id": client_id}
    if workflow is not None:
        queued["extra_data"] = {"extra_pnginfo": {"workflow": {"id": workflow}}}
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(f"{url}/ws?clientId={client_id}", max_msg_size=0) as socket:
            # Must be the first message: the server then says which node a preview belongs to.
            flags = {"supports_preview_metadata": True}
            await socket.send_json({"type": "feature_flags", "data": flags})
            async with session.post(f"{url}/prompt", json=queued) as answer:
                body = await answer.json()
            if answer.status != 200 or body.get("node_errors"):
                raise PromptRejected(prompt, body)
            messages = await _listen(socket, body["prompt_id"], on_message)
        async with session.get(f"{url}/history/{body['prompt_id']}") as answer:
            history = (await answer.json())[body["prompt_id"]]
    return Run(body["prompt_id"], history, messages)


async def _listen(
    socket: aiohttp.ClientWebSocketResponse, prompt_id: str, on_message: OnMessage
) -> list[dict]:
    """All messages until the server says that nothing is executing any more."""
    messages: list[dict] = []
    ended = False
    async for frame in socket:
        if frame.type == aiohttp.WSMsgType.TEXT:
            message = json.loads(frame.data)
        elif frame.type == aiohttp.WSMsgType.BINARY:
            message = _read_preview(frame.data)
        else:
            break
        if message is None:
            continue
        messages.append(message)
        on_message(message)
        ended = ended or message["type"] in _ENDINGS
        if ended and message["type"] == "executing" and message["data"].get("node") is None:
            return messages  # the history entry is written just before this message
    raise ConnectionError(f"the server closed the connection while prompt {prompt_id} was running")


def _read_preview(frame: bytes) -> dict | None:
    kind = int.from_bytes(frame[:4], "big")
    if kind == _PREVIEW:
        return {"type": "preview", "data": {"image": frame[8:], "metadata": {}}}
    if kind == _PREVIEW_WITH_METADATA:
        length = int.from_bytes(frame[4:8], "big")
        metadata = json.loads(frame[8 : 8 + length])
        return {"type": "preview", "data": {"image": frame[8 + length :], "metadata": metadata}}
    return None
