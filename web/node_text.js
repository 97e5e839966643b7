// Shows on a node of this pack the text it came to (`ui.text`), and keeps it there. The host's own
// progress text goes when the run ends, and a node answered from the cache sends none.

import { app } from "../../scripts/app.js";

const NAME = "stream_t1_text";
const HEIGHT = 240;
const STYLE = `box-sizing: border-box; width: 100%; min-height: ${HEIGHT}px; resize: none;
  overflow: auto; white-space: pre; padding: 6px; border: 1px solid #8886; border-radius: 4px;
  background: transparent; color: inherit; font: 11px/1.4 monospace;`;

function addBox(node) {
  const box = document.createElement("textarea");
  box.readOnly = true;
  box.style.cssText = STYLE;
  const options = { serialize: false, hideOnZoom: false, getMinHeight: () => HEIGHT + 20 };
  const widget = node.addDOMWidget(NAME, NAME, box, options);
  widget.serialize = false;
  const [width, height] = node.size;
  const [leastWidth, leastHeight] = node.computeSize();
  node.setSize([Math.max(width, leastWidth, 400), Math.max(height, leastHeight)]);
  return widget;
}

function show(node, text) {
  const widget = node.widgets?.find(({ name }) => name === NAME) ?? addBox(node);
  widget.element.value = text;
}

app.registerExtension({
  name: "stream_t1.node_text",
  beforeRegisterNodeDef(nodeType, { name }) {
    if (!name.startsWith("StreamT1")) return;
    const { onExecuted } = nodeType.prototype;
    nodeType.prototype.onExecuted = function (output) {
      onExecuted?.call(this, output);
      if (output?.text) show(this, output.text.join("\n"));
    };
  },
});
