"""A video that is written while it is made, and plays whatever becomes of the run.

Until it is closed the file is fragmented MP4, one fragment a frame, flushed as it is written: a
process that is killed loses the last frame. Closing makes it an ordinary MP4 in place, so that it
opens and seeks fast everywhere. Knows H.264, the host's file names and its workflow metadata;
nothing of chunks or beams.
"""

import json
import os
import struct
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import folder_paths
from comfy.cli_args import args
from comfy_api.latest import io
from torch import Tensor

KEYFRAME_SECONDS = 2


class VideoFile:
    """One MP4 file, created at once so that its name is taken; removed again if nothing came."""

    def __init__(self, path: Path, fps: float, crf: int, metadata: dict[str, str]) -> None:
        """``crf``: x264's constant quality, 0 lossless to 51. Raises if ``path`` exists."""
        self.path = path
        self.frames = 0
        self._fps = Fraction(fps).limit_denominator(1000)
        self._crf = crf
        self._metadata = metadata
        self._file = _Output(path)
        self._container: av.container.OutputContainer | None = None  # from the first frames on

    def write(self, frames: Tensor) -> None:
        """Append ``frames`` [T, H, W, 3] in 0..1; they are in the file on return, but for one."""
        if self._container is None:
            self._start(frames.shape[1], frames.shape[2])
        pixels = (frames * 255).round().clamp(0, 255).byte().cpu().numpy()  # (T, H, W, 3)
        try:
            for picture in pixels:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = self.frames
                self._container.mux(self._stream.encode(frame))
                self._file.keep()
                self.frames += 1
        except OSError as error:
            self._stop(error)

    def close(self) -> None:
        """Make it an ordinary MP4. Without effect the second time, and after a failed write."""
        if self._file.closed:
            return
        if self._container is None:
            self._file.close()
            self.path.unlink()
            return
        try:
            self._container.mux(self._stream.encode(None))
            self._file.keep()
            self._container.close()
            if self._metadata:
                self._file.lift_user_data()
        except OSError as error:
            self._stop(error)
        self._file.close()

    @property
    def saved(self) -> dict[str, str]:
        """The file as the host names it, for its history and its ``/view``."""
        subfolder = self.path.parent.relative_to(folder_paths.get_output_directory())
        folder = "" if subfolder == Path() else subfolder.as_posix()
        return {"filename": self.path.name, "subfolder": folder, "type": "output"}

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self, height: int, width: int) -> None:
        if height % 2 or width % 2:
            raise ValueError(
                f"Stream Video Writer: frames of {width} x {height} pixels, but H.264 video needs "
                "even width and height; change the size of the empty latent"
            )
        flags = "hybrid_fragmented+frag_every_frame+empty_moov+default_base_moof+use_metadata_tags"
        self._container = av.open(
            self._file, "w", format="mp4", options={"movflags": flags, "flush_packets": "1"}
        )
        self._container.metadata.update(self._metadata)
        self._stream = self._container.add_stream("libx264", rate=self._fps)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.gop_size = round(KEYFRAME_SECONDS * self._fps)
        # zerolatency: no frame waits inside the encoder
        self._stream.options = {"crf": str(self._crf), "tune": "zerolatency"}

    def _stop(self, error: OSError) -> None:
        self._file.abandon()
        raise RuntimeError(
            f"Stream Video Writer: cannot write {self.path}: {error.strerror or error}. The "
            "video so far plays. Make space and run again; with a reel, the run goes on where it "
            "stopped"
        ) from error


class _Output:
    """The file PyAV writes to. Once abandoned it swallows writes: PyAV finishes a container even
    when it is collected, and half a finish would make a playable file unplayable."""

    def __init__(self, path: Path) -> None:
        self._raw = open(path, "x+b", buffering=0)  # noqa: SIM115
        self._kept = 0
        self._abandoned = False

    @property
    def closed(self) -> bool:
        return self._raw.closed

    def write(self, data: bytes) -> int:
        left = memoryview(b"" if self._abandoned else data)
        try:
            while left:  # a raw write stops short where the disk ends
                left = left[self._raw.write(left) :]
        except OSError:
            self._abandoned = True
            raise
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return 0 if self._abandoned else self._raw.seek(offset, whence)

    def tell(self) -> int:
        return 0 if self._abandoned else self._raw.tell()

    def keep(self) -> None:
        """What is written up to here is whole."""
        self._kept = self._raw.tell()

    def abandon(self) -> None:
        """Cut off what is not whole, and let go."""
        self._abandoned = True
        self._raw.truncate(self._kept)
        self._raw.close()

    def close(self) -> None:
        self._abandoned = True
        self._raw.close()

    def lift_user_data(self) -> None:
        """Make the workflow of a finished file be found at its start, too.

        The front end looks into the first 64 MB; the index, and the metadata in it, is at the end.
        The fragmented file's index is still at the start, though: dead bytes inside ``mdat``. Of

            ftyp  free  mdat[... udta moof ...]  moov

        this makes, by new headers in two places that play no part any more,

            ftyp  free[...]  udta  mdat[...]  moov
        """
        free, _ = self._box(0)
        mdat_end = free + 8 + self._box(free + 8)[0]
        if self._box(free)[1] == b"mdat":  # above 4 GB its header takes the place of both
            mdat_end = free + self._read(">8xQ", free)[0]
        udta = free + 16
        size, kind = self._box(udta)
        while kind in (b"ftyp", b"moov", b"mvhd", b"trak", b"mvex"):
            udta += 8 if kind == b"moov" else size
            size, kind = self._box(udta)
        media = udta + size
        if (kind, self._box(media)[1]) != (b"udta", b"moof"):
            return  # laid out by another FFmpeg; the file is good as it is
        self._write_at(media, struct.pack(">I4sQ", 1, b"mdat", mdat_end - media))
        self._write_at(free, struct.pack(">I4s", udta - free, b"free"))

    def _box(self, start: int) -> tuple[int, bytes]:
        """Size and type of the box that starts there."""
        return self._read(">I4s", start)

    def _read(self, form: str, start: int) -> tuple:
        self._raw.seek(start)
        return struct.unpack(form, self._raw.read(struct.calcsize(form)))

    def _write_at(self, start: int, data: bytes) -> None:
        self._raw.seek(start)
        self._raw.write(data)


def workflow_metadata(hidden: io.HiddenHolder | None) -> dict[str, str]:
    """The workflow as the host's Save Video embeds it: JSON by key; empty if switched off."""
    if hidden is None or args.disable_metadata:
        return {}
    entries = {**(hidden.extra_pnginfo or {})}
    if hidden.prompt is not None:
        entries["prompt"] = hidden.prompt
    return {key: json.dumps(value) for key, value in entries.items()}


def new_path(filename_prefix: str, height: int, width: int) -> Path:
    """The next free file name in the host's output folder."""
    folder, name, counter, *_ = folder_paths.get_save_image_path(
        filename_prefix, folder_paths.get_output_directory(), width, height
    )
    return Path(folder) / f"{name}_{counter:05}_.mp4"
