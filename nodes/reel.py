"""Reel: keeps a run on disk and says what to do with it, as a settings node for the sampler."""

from comfy_api.latest import io

from ..stream_t1_core.kept import AskedReel
from ..stream_t1_core.takes import ACTIONS, UNLOCK, ReelRequest
from .host.reels import folder_of, state_of
from .sockets import ReelSocket, advanced

MOST = 1_000_000


class StreamT1Reel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StreamT1Reel",
            display_name="Reel",
            category="Stream-T1",
            description="Keeps the run on disk, chunk by chunk: stop it, lose power, come back "
            "tomorrow, and it goes on. Reroll a chunk or pick another candidate; what is made "
            "before it stays.",
            inputs=[
                io.String.Input(
                    "name",
                    default="my_reel",
                    tooltip="Folder in ComfyUI's output/stream_t1/reels. One that is there goes "
                    "on; a new name begins a new reel.",
                ),
                io.Combo.Input(
                    "action",
                    options=[*ACTIONS],
                    default=ACTIONS[0],
                    tooltip="continue: go on to the length asked for. reroll: again from a chunk "
                    "on, with other seeds. pick: replace a chunk's winner by another candidate "
                    "and go on. The last two begin a new take each time they are queued.",
                ),
                io.Int.Input(
                    "chunk",
                    default=1,
                    min=1,
                    max=MOST,
                    tooltip="For reroll: the first chunk made again. For pick: the chunk whose "
                    "winner is replaced. Counted from 1; earlier chunks are not made again.",
                ),
                io.Int.Input(
                    "candidate",
                    default=1,
                    min=1,
                    max=MOST,
                    tooltip="For pick: the candidate that takes the chunk's place, counted from 1 "
                    "as in the panel.",
                ),
                io.Int.Input(
                    "lock",
                    default=0,
                    min=UNLOCK,
                    max=MOST,
                    tooltip="Chunks 1 to this stay as in the video that won: reroll and pick "
                    "inside them are refused. 0: the reel's own lock, if it has one. -1: lift it.",
                ),
                io.Int.Input(
                    "take",
                    default=0,
                    min=0,
                    max=MOST,
                    tooltip="Which take to go on with or to branch from. 0: the newest. Older "
                    "takes stay in the reel.",
                ),
                advanced(
                    io.Boolean.Input(
                        "snapshot",
                        default=False,
                        tooltip="Also keep the model's memory after each chunk (up to gigabytes, "
                        "one chunk at a time), so that a long video goes on at once. For runs "
                        "with a Stream Video Writer whose keep_images is off; a new file then "
                        "begins where the run goes on.",
                    )
                ),
            ],
            outputs=[ReelSocket.Output("reel", display_name="reel")],
        )

    @classmethod
    def fingerprint_inputs(cls, name: str | None, action: str, **others: int | bool) -> str | float:
        """A new take each time it is queued; to continue, whenever the reel on disk is another."""
        if action != "continue" or name is None:
            return float("nan")
        return state_of(folder_of(name))

    @classmethod
    def execute(
        cls,
        name: str,
        action: str,
        chunk: int,
        candidate: int,
        lock: int,
        take: int,
        snapshot: bool,
    ) -> io.NodeOutput:
        request = ReelRequest(action, chunk - 1, candidate - 1, lock, take or None)
        return io.NodeOutput(AskedReel(folder_of(name), request, snapshot))


NODES = [StreamT1Reel]
