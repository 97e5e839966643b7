"""Videos written as they are made: what is in the file after a close, a kill and a full disk."""

import json
import multiprocessing
import os
import resource
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import av
import folder_paths
import pytest
import torch
from boot import Pack
from comfy.cli_args import args
from torch import Tensor

METADATA = {"prompt": '{"1": {"class_type": "Tést"}}', "workflow": '{"id": "a", "nodes": []}'}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    before = folder_paths.get_output_directory()
    folder_paths.set_output_directory(str(tmp_path))
    yield tmp_path
    folder_paths.set_output_directory(before)


def pictures(first: int, count: int, height: int = 48, width: int = 64) -> Tensor:
    """[T, H, W, 3]; picture n is plain and its brightness tells n."""
    numbers = torch.arange(first, first + count)
    return ((numbers % 50) / 50)[:, None, None, None].expand(count, height, width, 3)


def played(path: Path) -> tuple[list[int], dict[str, str]]:
    """The picture numbers that come out of a file, and its metadata."""
    with av.open(str(path)) as container:
        shown = [f.to_ndarray(format="rgb24").mean() for f in container.decode(video=0)]
        return [round(light / 255 * 50) for light in shown], dict(container.metadata)


def boxes(data: bytes) -> dict[bytes, bytes]:
    found = {}
    while len(data) >= 8:
        size, kind = struct.unpack(">I4s", data[:8])
        head = 8
        if size == 1:
            (size,) = struct.unpack(">8xQ", data[:16])
            head = 16
        found[kind] = data[head:size]
        data = data[size:]
    return found


def seen_by_the_front_end(path: Path) -> dict[str, dict]:
    """As its parser of dropped videos does: udta at the top, else in moov, of the first 64 MB."""
    top = boxes(path.read_bytes()[: 64 * 2**20])
    udta = top.get(b"udta") or boxes(top[b"moov"])[b"udta"]
    meta = boxes(boxes(udta)[b"meta"][4:])
    keys, names = meta[b"keys"][8:], []
    while keys:
        size = struct.unpack(">I", keys[:4])[0]
        names.append(keys[8:size].decode())
        keys = keys[size:]
    values = boxes(meta[b"ilst"])  # by number, from 1
    texts = {
        name: boxes(values[struct.pack(">I", i)])[b"data"][8:] for i, name in enumerate(names, 1)
    }
    return {name: json.loads(text) for name, text in texts.items() if name in METADATA}


def elsewhere(task: Callable[[], None]) -> int:
    """Run it in a process of its own; the exit code."""
    process = multiprocessing.get_context("fork").Process(target=task)
    process.start()
    process.join()
    return process.exitcode


def check_a_closed_file_holds_every_frame_and_the_workflow(pack: Pack, output: Path) -> None:
    host, path = pack.module("nodes.host.video_file"), output / "a.mp4"
    with host.VideoFile(path, 16.0, 18, METADATA) as video:
        for first, count in ((0, 9), (9, 12), (21, 1), (22, 30)):
            video.write(pictures(first, count))
    shown, metadata = played(path)
    assert shown == [n % 50 for n in range(52)]
    assert METADATA.items() <= metadata.items()
    assert seen_by_the_front_end(path) == {k: json.loads(v) for k, v in METADATA.items()}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.frames == 52 and stream.average_rate == 16  # an index: no fragments any more
        assert (stream.width, stream.height) == (64, 48)
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
    video.close()


def check_the_workflow_is_found_in_a_file_of_any_size(pack: Pack, output: Path) -> None:
    """It is before the pictures, where the front end looks."""
    with pack.module("nodes.host.video_file").VideoFile(
        output / "a.mp4", 16.0, 18, METADATA
    ) as video:
        video.write(torch.rand(12, 64, 64, 3))
    whole = boxes((output / "a.mp4").read_bytes())
    assert list(whole) == [b"ftyp", b"free", b"udta", b"mdat", b"moov"]


def check_a_kill_costs_one_frame(pack: Pack, output: Path) -> None:
    host, path = pack.module("nodes.host.video_file"), output / "a.mp4"

    def killed() -> None:
        video = host.VideoFile(path, 16.0, 18, METADATA)
        for first in range(0, 48, 12):
            video.write(pictures(first, 12))
        os.kill(os.getpid(), signal.SIGKILL)

    assert elsewhere(killed) == -signal.SIGKILL
    shown, metadata = played(path)
    assert shown == list(range(47))
    assert METADATA.items() <= metadata.items()
    assert seen_by_the_front_end(path) == {k: json.loads(v) for k, v in METADATA.items()}


@pytest.mark.parametrize("missing", [1, 300, 1500, 20_000, 60_000])
def check_a_full_disk_leaves_what_plays(pack: Pack, output: Path, missing: int) -> None:
    """Wherever it strikes, a frame or the index that is written last."""
    host = pack.module("nodes.host.video_file")
    frames = torch.rand(24, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    with host.VideoFile(output / "whole.mp4", 16.0, 18, METADATA) as video:
        video.write(frames)
    size = (output / "whole.mp4").stat().st_size
    assert size > 70_000
    path, told = output / "cut.mp4", output / "told.txt"

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - missing, size - missing))
        try:
            with host.VideoFile(path, 16.0, 18, METADATA) as video:
                video.write(frames[:12])
                video.write(frames[12:])
        except RuntimeError as error:
            told.write_text(str(error))

    assert elsewhere(full) == 0
    assert f"cannot write {path}: File too large. The video so far plays. Make" in told.read_text()
    shown, metadata = played(path)
    assert len(shown) >= (23 if missing < 1000 else 1)
    assert METADATA.items() <= metadata.items()


def check_files_never_meet(pack: Pack, output: Path) -> None:
    host = pack.module("nodes.host.video_file")
    videos = [
        host.VideoFile(host.new_path("video/a_%width%x%height%", 48, 64), 16.0, 18, {})
        for _ in range(2)
    ]
    for number, video in enumerate(videos):
        video.write(pictures(number, 3))
        video.close()
    names = ["a_64x48_00001_.mp4", "a_64x48_00002_.mp4"]
    assert [v.path for v in videos] == [output / "video" / name for name in names]
    assert [played(v.path)[0] for v in videos] == [[0, 1, 2], [1, 2, 3]]
    assert videos[1].saved == {"filename": names[1], "subfolder": "video", "type": "output"}
    with pytest.raises(FileExistsError):
        host.VideoFile(videos[0].path, 16.0, 18, {})
    with pytest.raises(Exception, match="outside the output folder"):
        host.new_path("../a", 48, 64)


def check_an_error_of_the_run_keeps_the_file(pack: Pack, output: Path) -> None:
    host = pack.module("nodes.host.video_file")
    with (
        pytest.raises(KeyboardInterrupt),
        host.VideoFile(output / "a.mp4", 16.0, 18, {}) as video,
    ):
        video.write(pictures(0, 12))
        raise KeyboardInterrupt
    assert played(output / "a.mp4")[0] == list(range(12))
    with host.VideoFile(output / "b.mp4", 16.0, 18, {}):
        pass
    assert not (output / "b.mp4").exists()


def check_odd_sizes_are_refused(pack: Pack, output: Path) -> None:
    host = pack.module("nodes.host.video_file")
    with (
        pytest.raises(ValueError, match="frames of 65 x 48 pixels, .* even width and height"),
        host.VideoFile(output / "a.mp4", 16.0, 18, {}) as video,
    ):
        video.write(pictures(0, 1, width=65))
    assert not (output / "a.mp4").exists()


def check_metadata_is_the_hosts(pack: Pack, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = pack.module("nodes.host.video_file")
    hidden = SimpleNamespace(prompt={"1": {}}, extra_pnginfo={"workflow": {"id": "a"}})
    assert host.workflow_metadata(hidden) == {"workflow": '{"id": "a"}', "prompt": '{"1": {}}'}
    assert host.workflow_metadata(SimpleNamespace(prompt=None, extra_pnginfo=None)) == {}
    assert host.workflow_metadata(None) == {}
    monkeypatch.setattr(args, "disable_metadata", True)
    assert host.workflow_metadata(hidden) == {}
