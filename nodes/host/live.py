"""Runs that a browser can watch: the report so far, and a filmstrip of every candidate.

A run is told as it goes, in messages named ``stream_t1.run``; who comes later, or reloads, asks the
routes. All of it is kept in memory and bounded: the oldest runs are forgotten. It knows the server
and the report's records, not what is in them.

A message: ``run`` (its id), ``node`` (``12:7`` inside a subgraph), ``workflow`` (id, or null for a
prompt posted without one), ``reel`` (``name`` and ``take``, or null), ``video`` (the file that is
written meanwhile, as ``/view`` takes it, or null), ``quality`` (of its budget, as it is now, or
null where it does not spend by quality), ``seq`` (from 0), ``record`` (one line of the report) and,
with a chunk or a question about one, ``strips`` (pictures in each candidate's filmstrip, 0: none);
with a question ``asked`` (Unix seconds) too.

- ``GET /stream_t1/runs?workflow=ID``: a list of ``run``, ``node``, ``workflow``, ``reel``,
  ``video``, ``quality``, ``started`` (Unix seconds), ``state`` (running, asking, done, stopped),
  oldest first
- ``GET /stream_t1/runs/RUN``: ``run``, ``node``, ``workflow``, ``reel``, ``video``, ``quality``,
  all its ``messages``, and ``now`` (Unix seconds; clocks differ)
- ``GET /stream_t1/runs/RUN/CHUNK/CANDIDATE.jpg``: a filmstrip
- ``POST /stream_t1/runs/RUN/quality`` with ``{"quality": 0.3}``, 0 to 1: what the run's budget is
  from the next chunk on. 200; 409 when the run does not spend by quality, or has ended; 400, 415.
  404 and 409 name the runs there are
- ``POST /stream_t1/runs/RUN/choice`` with ``{"chunk": 2, "candidates": [3, 0]}``, from 0, the best
  first: these go on. 200; 409 when the run does not wait for this chunk; 400 and 415 say what is
  wrong with the request
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from server import PromptServer

from ...stream_t1_core.events import CandidatesMade, Event, SurvivorsRefined
from ...stream_t1_core.report import Report
from .filmstrips import Filmstrip, filmstrips
from .question import Question

MESSAGE = "stream_t1.run"
MOST_RUNS = 32
MOST_BYTES = 128 * 1024 * 1024  # of one run's filmstrips, and of all earlier ones together
STATES = {"run_done": "done", "run_stopped": "stopped"}
MOST_BODY_BYTES = 4096
MOST_NAMED = 4  # runs in the text of a refusal


@dataclass(eq=False)
class LiveRun:
    """One run, told while it runs. Callable for ``emit``, after ``report``."""

    node: str
    workflow: str | None
    report: Report = field(repr=False)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: float = field(default_factory=time.time)
    messages: list[dict[str, Any]] = field(default_factory=list, repr=False)
    strips: dict[int, list[Filmstrip | None]] = field(default_factory=dict, repr=False)  # by chunk
    reel: dict[str, Any] | None = None  # name and take that it writes; set before it is told
    video: dict[str, str] | None = None  # the file that it writes; set before it is told
    question: Question | None = None  # while the artist is asked
    quality: float | None = None  # of the budget; set before it is told, and moved while it runs

    def __call__(self, event: Event) -> None:
        if isinstance(event, CandidatesMade):
            self.strips[event.chunk] = filmstrips(event.frames)
            while self.strip_bytes > MOST_BYTES:
                self.strips.pop(min(self.strips))
        elif isinstance(event, SurvivorsRefined) and event.chunk in self.strips:
            before = self.strips[event.chunk]
            anew = filmstrips([event.frames.get(i) for i in range(len(before))])
            self.strips[event.chunk] = [a or b for a, b in zip(anew, before, strict=True)]
        self.tell()

    def tell(self) -> None:
        """Send what the report has that was not sent yet, to every open browser."""
        for seq in range(len(self.messages), len(self.report.records)):
            record = self.report.records[seq]
            message = {**self.identity, "seq": seq, "record": record}
            if record["event"] in ("chunk_done", "choice_asked"):
                chunk = self.strips.get(record["chunk"], [None] * len(record["candidates"]))
                message["strips"] = [strip.pictures if strip else 0 for strip in chunk]
            if record["event"] == "choice_asked":
                message["asked"] = time.time()
            self.messages.append(message)
            if server := running_server():
                server.send_sync(MESSAGE, message)

    @property
    def identity(self) -> dict[str, Any]:
        place = {"node": self.node, "workflow": self.workflow}
        files = {"reel": self.reel, "video": self.video}
        return {"run": self.id, **place, **files, "quality": self.quality}

    @property
    def state(self) -> str:
        if self.question:
            return "asking"
        last = self.messages[-1]["record"]["event"] if self.messages else None
        return STATES.get(last, "running")

    @property
    def takes_quality(self) -> bool:
        """Whether its budget can be moved as it runs."""
        return self.quality is not None and self.state in ("running", "asking")

    @property
    def strip_bytes(self) -> int:
        chunks = list(self.strips.values())  # a copy: the server's thread asks, a run adds
        return sum(len(strip.jpeg) for chunk in chunks for strip in chunk if strip)


class LiveRuns:
    """The latest runs, oldest first."""

    def __init__(self) -> None:
        self._runs: dict[str, LiveRun] = {}

    def __iter__(self) -> Iterator[LiveRun]:
        return iter(list(self._runs.values()))  # a copy: the server's thread reads, a run adds

    def get(self, run_id: str) -> LiveRun | None:
        return self._runs.get(run_id)

    def start(self, node: str, workflow: str | None, report: Report) -> LiveRun:
        """A new run; the oldest are forgotten to make room."""
        earlier = list(self)
        while len(earlier) >= MOST_RUNS or sum(r.strip_bytes for r in earlier) > MOST_BYTES:
            self._runs.pop(earlier.pop(0).id, None)
        run = LiveRun(node, workflow, report)
        self._runs[run.id] = run
        return run

    def named(self, only: Callable[[LiveRun], bool] = lambda run: True) -> str:
        """The latest runs of a kind, oldest first, for whoever asked for another."""
        some = [f"{run.id} ({run.state})" for run in self if only(run)]
        before = f"{len(some) - MOST_NAMED} more, " if len(some) > MOST_NAMED else ""
        return before + ", ".join(some[-MOST_NAMED:]) if some else "none"

    def filmstrips(self, report: str) -> dict[tuple[int, int], Filmstrip]:
        """By (chunk, candidate), those of the run that made this report; none if forgotten."""
        for run in self:
            if str(run.report) == report:
                return {
                    (i, j): strip
                    for i, chunk in run.strips.items()
                    for j, strip in enumerate(chunk)
                    if strip
                }
        return {}


runs = LiveRuns()


def running_server() -> PromptServer | None:
    """The host's server; None where nodes are used without one."""
    return getattr(PromptServer, "instance", None)


def add_routes(server: PromptServer) -> None:
    """Make the runs reachable over HTTP."""
    routes = server.routes

    @routes.get("/stream_t1/runs")
    async def list_runs(request: web.Request) -> web.Response:
        workflow = request.query.get("workflow")
        some = [run for run in runs if workflow in (None, run.workflow)]
        return web.json_response(
            [{**run.identity, "started": run.started, "state": run.state} for run in some]
        )

    @routes.get("/stream_t1/runs/{run}")
    async def one_run(request: web.Request) -> web.Response:
        run = _asked_for(request)
        messages = list(run.messages)
        return web.json_response({**run.identity, "messages": messages, "now": time.time()})

    @routes.get(r"/stream_t1/runs/{run}/{chunk:\d+}/{candidate:\d+}.jpg")
    async def filmstrip(request: web.Request) -> web.Response:
        run = _asked_for(request)
        chunk, candidate = (int(request.match_info[name]) for name in ("chunk", "candidate"))
        strips = run.strips.get(chunk, [])
        strip = strips[candidate] if candidate < len(strips) else None
        if strip is None:
            raise web.HTTPNotFound(text="no filmstrip of this candidate")
        headers = {"Cache-Control": "private, max-age=86400, immutable"}
        return web.Response(body=strip.jpeg, content_type="image/jpeg", headers=headers)

    @routes.post("/stream_t1/runs/{run}/choice")
    async def choose(request: web.Request) -> web.Response:
        run = _asked_for(request)
        chunk, candidates = await _choice(request)
        question = run.question
        if question is None or question.chunk != chunk:
            raise web.HTTPConflict(text=f"this run does not wait for chunk {chunk} (from 0)")
        try:
            taken = question.answer(candidates)
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        if not taken:
            raise web.HTTPConflict(text=f"chunk {chunk} (from 0) is decided already")
        return web.json_response({"chunk": chunk, "candidates": candidates})

    @routes.post("/stream_t1/runs/{run}/quality")
    async def move(request: web.Request) -> web.Response:
        run = _asked_for(request)
        quality = await _quality(request)
        if not run.takes_quality:
            raise web.HTTPConflict(text=_why_not_moved(run))
        run.quality = quality
        return web.json_response({"quality": quality})


def _asked_for(request: web.Request) -> LiveRun:
    asked = request.match_info["run"]
    run = runs.get(asked)
    if run is None:
        raise web.HTTPNotFound(
            text=f"There is no run {asked[:64]!r}: the latest {MOST_RUNS} are remembered, until "
            "ComfyUI is restarted. Take the 'run' of an entry of GET /stream_t1/runs, which is not "
            f"the prompt_id of the queue. Runs now: {runs.named()}"
        )
    return run


def _why_not_moved(run: LiveRun) -> str:
    """Why a run takes no quality, what to do, and which runs do."""
    why = (
        f"Run {run.id} spends by no quality. Plug a Budget into its sampler, with 'spend' at low, "
        "medium, high or quality, and queue it again"
    )
    if run.state in STATES.values():
        why = (
            f"Run {run.id} has ended ({run.state}); a quality can be moved only while a run goes. "
            "For the next run set it in the Budget node"
        )
    movable = runs.named(lambda other: other.takes_quality)
    return f"{why}. Runs that take a quality now: {movable}"


async def _body(request: web.Request) -> Any:
    """A request's JSON; what cannot be read is the sender's error."""
    if request.content_type != "application/json":  # a foreign page cannot send it unasked
        raise web.HTTPUnsupportedMediaType(text="send JSON, with Content-Type: application/json")
    body = await request.clone(client_max_size=MOST_BODY_BYTES).read()
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise web.HTTPBadRequest(text=f"the body is not JSON ({error})") from error


async def _quality(request: web.Request) -> float:
    """The quality of a body."""
    body = await _body(request)
    quality = body.get("quality") if isinstance(body, dict) else None
    # bool is an int to isinstance, and NaN compares false
    if type(quality) not in (int, float) or not 0 <= quality <= 1:
        raise web.HTTPBadRequest(text='an object such as {"quality": 0.3} is expected, 0 to 1')
    return float(quality)


async def _choice(request: web.Request) -> tuple[int, list[int]]:
    """Chunk and candidates of a choice's body."""
    choice = await _body(request)
    chunk, candidates = (
        (choice.get("chunk"), choice.get("candidates")) if isinstance(choice, dict) else (None, [])
    )
    # bool is an int to isinstance
    if type(chunk) is not int or not _whole_numbers(candidates):
        raise web.HTTPBadRequest(
            text='an object such as {"chunk": 2, "candidates": [3]} is expected, whole numbers '
            "counted from 0"
        )
    return chunk, candidates


def _whole_numbers(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)
