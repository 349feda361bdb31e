// Keys and tools. page: where the reader is (functions), and what they can do.
import { at } from "/page/parts.js";

export const SAYS = { "real-or-synthetic": { R: "real", S: "synthetic" }, detection: { N: "none", L: "lesion" } };
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function arrow(viewer, key, shift, onImage) {
  const [dx, dy] = STEPS[key];
  if (viewer.tool && onImage && !shift) viewer.moveCursor(dx, dy);
  else if (dy && viewer.depth > 1 && !shift) viewer.scroll(dy);
  else viewer.move(dx * 0.05, dy * 0.05);
}

// The button that has this digit: 0 the last one, if it is called so.
function numbered(key) {
  const place = key === "0" ? at("answers").children.length - 1 : Number(key) - 1;
  const found = at("answers").children[place];
  return found?.firstChild.textContent === key ? found : null;
}

export function listen(page) {
  const { viewer, study, shown, right } = page;
  const keys = {
    u: page.undo, p: page.pause, m: page.marking, f: () => viewer().fit(),
    "+": () => viewer().zoomBy(1.25), "=": () => viewer().zoomBy(1.25), "-": () => viewer().zoomBy(0.8),
    "[": () => viewer().window(0.03, 0), "]": () => viewer().window(-0.03, 0),
    ",": () => viewer().window(0, 0.05), ".": () => viewer().window(0, -0.05),
    pageup: () => viewer().scroll(-1), pagedown: () => viewer().scroll(1), delete: () => right() || viewer().unmark(),
  };
  at("zoomIn").onclick = () => viewer().zoomBy(1.25);
  at("zoomOut").onclick = () => viewer().zoomBy(0.8);
  at("fit").onclick = () => viewer().fit();
  at("reset").onclick = () => (viewer().resetWindow(), viewer().draw());
  at("mark").onclick = page.marking;
  at("unmark").onclick = () => viewer().unmark();
  at("slice").oninput = (event) => viewer().scroll(event.target.value - 1 - viewer().slice);
  at("centre").oninput = (event) => viewer().window(1 - event.target.value - viewer().centre, 0);
  at("width").oninput = (event) => viewer().window(0, -event.target.value - viewer().width);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat && /^[0-9a-z]$/i.test(event.key)) return;
    const typed = event.target.matches?.("input[type=password]"), ranged = event.target.matches?.("input[type=range]");
    if (typed || !study() || document.body.dataset.state === "token") return;
    const onImage = event.target.tagName === "CANVAS", key = event.key.toLowerCase();
    if (page.resting()) {
      if (key === "p") page.pause();
      return;
    }
    const said = SAYS[study().kind]?.[key.toUpperCase()];
    if (event.key in STEPS) {
      if (ranged || !shown()) return;
      arrow(viewer(), event.key, event.shiftKey, onImage);
    } else if (event.key === "Enter" && onImage && viewer().tool && !right()) viewer().markHere();
    else if (/^[0-9]$/.test(key)) {
      const button = right() ? null : numbered(key);
      if (!button) return;
      button.click();
    } else if (said) page.choose(said);
    else if (keys[key] && (shown() || key === "u")) keys[key]();
    else return;
    event.preventDefault();
  });
}
