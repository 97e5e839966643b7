// Shows on a node of this pack the text it came to (`ui.text`), and keeps it there. The host's own
// progress text goes when the run ends, and a node answered from the cache sends none.

import { app } from "../../scripts/app.js";

const NAME = "stream_t1_text";
const LINE = 16, MOST_HEIGHT = 240, TABLE_WIDTH = 400; // pixels
const STYLE = `box-sizing: border-box; width: 100%; resize: none; overflow: auto;
  white-space: pre; padding: 6px; border: 1px solid #8886; border-radius: 4px;
  background: transparent; color: inherit; font: 11px/1.4 monospace;`;

// One line takes little room; a table gets a box to scroll in.
function addBox(node, lines) {
  const height = Math.min(MOST_HEIGHT, LINE * lines + 18);
  const box = document.createElement("textarea");
  box.readOnly = true;
  box.style.cssText = `${STYLE} min-height: ${height}px;`;
  const options = { serialize: false, hideOnZoom: false, getMinHeight: () => height + 4 };
  const widget = node.addDOMWidget(NAME, NAME, box, options);
  widget.serialize = false;
  const [width, before] = node.size;
  const [leastWidth, leastHeight] = node.computeSize();
  node.setSize([Math.max(width, leastWidth, lines > 1 ? TABLE_WIDTH : 0), Math.max(before, leastHeight)]);
  return widget;
}

function show(node, text) {
  const lines = text.split("\n").length;
  const widget = node.widgets?.find(({ name }) => name === NAME) ?? addBox(node, lines);
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
