"""Makes workflows/*.json and their pictures from workflows/api/*.json, in the editor itself; and
docs/panel.png, the sampler's panel after the quickstart.

    python -m devtools.build_workflows URL [NAME ...]

URL is a running ComfyUI with this pack; without names, all are made. The API files are written by
hand; the editor turns them into graphs (`app.loadApiJson`), this script puts the nodes into
columns, adds a note, and takes the picture. Workflows of the tiny model are run first, so that
their picture shows a result.
Needs Playwright and a Chromium on the PATH.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from .server import PACK_ROOT

FOLDER = PACK_ROOT / "workflows"
PANEL_PICTURE = PACK_ROOT / "docs" / "panel.png"
PICTURE_WIDTH = 1440
VIEW = {"width": 2560, "height": 1500}
PAGE_TIMEOUT_MS = 240_000
RUN_TIMEOUT_MS = 900_000
# Without these, Chromium's own talk with its maker holds up a closed network.
CHROMIUM_ARGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
READY = "() => window.app?.extensionManager?.setting && LiteGraph.registered_node_types.KSampler"

FILES_NOTE = """## Files

| file | folder |
| --- | --- |
| `longlive_base.pt` of [LongLive-1.3B][1] | `models/diffusion_models` |
| `lora.pt`, same place | `models/loras` |
| `umt5_xxl_fp8_e4m3fn_scaled.safetensors` | `models/text_encoders` |
| `wan_2.1_vae.safetensors` | `models/vae` |

Names may differ: choose yours in the loaders.

[1]: https://huggingface.co/Efficient-Large-Model/LongLive-1.3B
"""


@dataclass(frozen=True)
class Layout:
    """Node ids column by column, from the left, and the note above them."""

    columns: tuple[tuple[int, ...], ...]
    note: str
    note_height: int = 200
    runs: bool = False
    panel_width: int = 860  # pixels, of the sampler's node: room for some chunks in the panel


LAYOUTS = {
    "quickstart": Layout(
        ((20, 3), (1, 2), (7, 8, 9, 10), (6, 12), (4, 13, 5, 11), (14,), (15, 16, 17)),
        "## Quickstart\n\nThe small model that ships with the pack: no download, any CPU. Press "
        "**Run**.\n\nFour candidates a chunk, two survive. **Budget** says so: 0 makes one, 1 all "
        "eight that the Reward Pruner allows. While the run goes, the slider in the sampler's "
        "panel moves it. Unplug a unit from the sampler and it is off; Budget needs the Reward "
        "Pruner. Every candidate's seed and scores are in the report.\n\nThe model knows one "
        "coloured shape, moving in one direction, on a dark, light or grey background.",
        runs=True,
    ),
    "timeline": Layout(
        ((8, 9, 10), (6, 12), (1, 13), (2, 3, 15), (14,), (17,)),
        "## Prompt Timeline\n\nThree prompts in one video of 8 s: the circle turns round at second "
        "3 and becomes blue at 5.25. Change the text and press **Run**. A prompt begins with the "
        "chunk nearest to its time. CLIPScore judges each chunk by the prompt that is on; Color "
        "Drift is left out, it would vote against a new colour.\n\nThe Stream Video Writer writes "
        "the file to `output/video` while it is made. With `keep_images` off, length costs no "
        "memory.",
        note_height=200,
        runs=True,
    ),
    "start_from_image": Layout(
        ((4, 5), (6, 8), (1, 7), (2, 3), (14,), (15, 16)),
        "## Start from a picture\n\nThe picture is the first frame and the video goes on from it. "
        "Here three nodes draw it, so that nothing need be loaded: a red square on a dark ground. "
        "Put **Load Image** in their place for your own, or a clip's frames to go on with a clip. "
        "The prompt should describe what is there; where they differ, this model follows the "
        "prompt.\n\nIt has only seen shapes that start near the middle: farther out, it lets go "
        "of the picture.",
        note_height=190,
        runs=True,
        panel_width=500,
    ),
    "extend": Layout(
        ((1, 4), (2, 3), (14,), (15, 16)),
        "## Extend a video\n\n1. Press **Run**: 33 frames, 2 s, kept on disk as the reel "
        "`extend`.\n2. Set **length** to 81 and press **Run** again: the video goes on. What is "
        "there is not made again.\n\nThat also works tomorrow, after a crash, or with another "
        "prompt for what is new. Another **name** in the Reel node begins another video.",
        note_height=170,
        runs=True,
        panel_width=500,
    ),
    "reroll": Layout(
        ((20, 3), (1, 2), (7, 8, 9, 10), (6, 12), (18, 4, 13, 5), (14,), (15, 16, 17)),
        "## Reroll one bad chunk\n\nPress **Run**, then click a candidate in the sampler's "
        "panel:\n\n- **Reroll from chunk ...**: that chunk and all later ones again, with other "
        "seeds.\n- **Keep candidate ... instead**, on one that lost: the video goes on from it.\n"
        "- **Lock chunks 1 to ...**: these stay as they are.\n\nEarlier chunks are not made again "
        "and nothing is lost: each reroll is a new take of the reel, and `take` goes back to an "
        "older one. Without a browser, set the Reel node's `action`, `chunk` and `candidate`, "
        "counted from 1.",
        note_height=260,
        runs=True,
    ),
    "longlive_plain": Layout(
        ((1, 2, 3), (4, 5), (6,), (7, 8, 9)),
        "## LongLive, plain streaming\n\nOne candidate a chunk: the video LongLive makes by "
        "itself. Compare with `longlive_stream_t1`.\n\n" + FILES_NOTE,
        note_height=330,
    ),
    "longlive_stream_t1": Layout(
        ((1, 2, 3, 4), (12, 13, 14, 15, 16), (17, 18), (10, 19, 11), (5, 6), (7, 8, 9)),
        "## LongLive with Stream-T1\n\nAll three units. Four candidates a chunk cost about four "
        "times the plain run; unplug a unit from the sampler and it is off.\n\n" + FILES_NOTE,
        note_height=350,
    ),
    "longlive_learned_rewards": Layout(
        ((1, 2, 3), (20, 12, 13, 14), (4, 5), (10, 19, 11), (6,), (7, 8, 9)),
        "## LongLive with the paper's rewards\n\nHPSv3 judges each chunk's frames, VideoAlign the "
        "last ten chunks as a video. To judge by PickScore instead, move its wire to the Reward "
        "Pruner's `short_reward`.\n\nThe rewards' files go to folders in `models/stream_t1`: see "
        "their help pages, or run the Doctor node.\n\n" + FILES_NOTE,
        note_height=420,
    ),
    "ablation": Layout(
        (
            (6, 7, 8, 9, 10),
            (11, 12),
            (4, 13, 5),
            (1, 2, 3),
            (14, 15),
            (16, 17),
            (23, 24, 25, 26, 18, 19),
            (20, 21, 22),
        ),
        "## Ablation\n\nOne prompt, one seed, four samplers: plain streaming, + Reward Pruner, + "
        "Noise Propagation, + Memory Sink, side by side in one video. One report each.",
        runs=True,
        panel_width=420,
    ),
}

ARRANGE = """([columns, note, noteHeight, panelWidth]) => {
  const gapX = 70, gapY = 60;
  let x = 0;
  for (const ids of columns) {
    const nodes = ids.map(id => app.graph.getNodeById(id));
    let width = 0;
    for (const node of nodes) {
      const [leastWidth, leastHeight] = node.computeSize();
      const size = {
        CLIPTextEncode: [340, 170],
        PrimitiveStringMultiline: [340, 170],
        PreviewImage: [250, 300],
        SaveVideo: [330, 450],
        StreamT1PromptTimeline: [460, 300],
        StreamT1ChunkBeamSampler: [panelWidth, leastHeight + 230],
        StreamT1SaveReport: [330, leastHeight + 70],
      }[node.type] ?? [Math.max(leastWidth, 250), leastHeight];
      node.setSize(size);
      for (const widget of node.widgets ?? [])
        if (widget.name === 'control_after_generate') widget.value = 'fixed';
      width = Math.max(width, size[0]);
    }
    let y = 0;
    for (const node of nodes) {
      node.pos = [x, y];
      node.setSize([width, node.size[1]]);
      y += node.size[1] + gapY;
    }
    x += width + gapX;
  }
  const sign = LiteGraph.createNode('MarkdownNote');
  sign.title = 'About this workflow';
  sign.widgets[0].value = note;
  sign.pos = [0, -noteHeight - gapY - 20];
  sign.setSize([460, noteHeight]);
  app.graph.add(sign);
  app.graph.setDirtyCanvas(true, true);
}"""

# Fits the graph below the editor's own bars and gives the picture's box in pixels.
FIT = """() => {
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  for (const node of app.graph._nodes) {
    box[0] = Math.min(box[0], node.pos[0]); box[1] = Math.min(box[1], node.pos[1] - 50);
    box[2] = Math.max(box[2], node.pos[0] + node.size[0]);
    box[3] = Math.max(box[3], node.pos[1] + node.size[1]);
  }
  const margin = 30, bars = 150, ds = app.canvas.ds;
  const width = box[2] - box[0] + 2 * margin, height = box[3] - box[1] + 2 * margin;
  ds.scale = Math.min(window.innerWidth / width, (window.innerHeight - bars) / height);
  ds.offset[0] = margin - box[0];
  ds.offset[1] = margin - box[1] + bars / ds.scale;
  app.canvas.show_info = false;
  app.canvas.min_font_size_for_lod = 0;
  app.graph.setDirtyCanvas(true, true);
  return [0, bars, width * ds.scale, bars + height * ds.scale];
}"""

PANEL_IN_SIGHT = """() => {
  const node = app.graph._nodes.find(node => node.type === 'StreamT1ChunkBeamSampler');
  const { ds } = app.canvas;
  ds.scale = 1;
  ds.offset[0] = 200 - node.pos[0]; ds.offset[1] = 200 - node.pos[1];
  app.graph.setDirtyCanvas(true, true);
}"""

HIDE = """.side-tool-bar-container, .p-toast, .minimap-main-container, .graph-canvas-panel > *
{ display: none !important }"""

ADD_STYLE = """text => {
  const style = document.createElement('style');
  style.textContent = text;
  document.head.append(style);
  return style;
}"""


def main(url: str, *names: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=CHROMIUM_ARGS,
        )
        page = browser.new_page(viewport=VIEW)
        page.set_default_timeout(PAGE_TIMEOUT_MS)
        # else the editor opens its template browser on a first visit
        page.request.post(f"{url}/settings/Comfy.TutorialCompleted", data=True)
        for name in names or LAYOUTS:
            page.goto(url)  # anew: the editor keeps results by node id, across workflows
            page.wait_for_function(READY)
            build(page, name, LAYOUTS[name])
            print(f"{name}: done", flush=True)
        browser.close()


def build(page: Page, name: str, layout: Layout) -> None:
    api = (FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8")
    page.evaluate("([text, name]) => app.loadApiJson(JSON.parse(text), name)", [api, name])
    page.evaluate(ARRANGE, [layout.columns, layout.note, layout.note_height, layout.panel_width])
    graph = page.evaluate("() => JSON.stringify(app.graph.serialize())")
    text = json.dumps(json.loads(graph), indent=1, ensure_ascii=False)
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    if layout.runs:
        page.evaluate(
            "() => { window.ended = false; for (const kind of ['success', 'error'])"
            " app.api.addEventListener('execution_' + kind, () => { window.ended = true }) }"
        )
        page.evaluate("() => app.queuePrompt(0, 1)")
        page.wait_for_function("() => window.ended", timeout=RUN_TIMEOUT_MS)
    take_picture(page, FOLDER / f"{name}.jpg")
    if name == "quickstart":
        page.evaluate(PANEL_IN_SIGHT)
        page.wait_for_timeout(1000)
        page.locator(".stream-t1-panel .cell.winner[data-chunk='3']").click()
        PANEL_PICTURE.parent.mkdir(exist_ok=True)
        page.locator(".stream-t1-panel").screenshot(path=PANEL_PICTURE)


def take_picture(page: Page, path: Path) -> None:
    # not add_style_tag: it takes any complaint about the page's content policy for its own failure
    style = page.evaluate_handle(ADD_STYLE, HIDE)
    box = page.evaluate(FIT)
    page.wait_for_timeout(2500)  # widgets and the video follow the canvas a few frames later
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    style.evaluate("element => element.remove()")
    picture = picture.crop(tuple(map(round, box)))
    picture.thumbnail((PICTURE_WIDTH, PICTURE_WIDTH))
    picture.save(path, quality=88)


if __name__ == "__main__":
    main(*sys.argv[1:])
