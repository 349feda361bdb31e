// Parts of the page: their words in the reader's language, buttons with their keys.
import { chinese, say } from "/page/words.js";

export const at = (id) => document.getElementById(id);

const WORDS = ["undo", "pause", "language", "enter", "fit", "reset", "again", "next", "keys"];
const LABELS = { tools: "tools", answers: "answer", says: "answer", images: "image", zoomIn: "zoomIn", zoomOut: "zoomOut" };
const SPANS = { entryWord: "token", sliceWord: "slice", centreWord: "centre", widthWord: "width", mark: "marking", unmark: "removeMark" };

export function words() {
  document.documentElement.lang = chinese ? "zh-CN" : "en";
  for (const id of WORDS) at(id).textContent = say(id);
  for (const [id, name] of Object.entries(SPANS)) at(id).textContent = say(name);
  for (const [id, name] of Object.entries(LABELS)) at(id).setAttribute("aria-label", say(name));
  at("keyList").replaceChildren(...say("help").map(([key, what]) => {
    const line = document.createElement("div"), dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = key;
    dd.textContent = what;
    line.append(dt, dd);
    return line;
  }));
}

export function button(key, text, pressed, act, disabled = false) {
  const made = document.createElement("button"), hint = document.createElement("kbd");
  hint.textContent = key;
  made.append(hint, text);
  made.setAttribute("aria-keyshortcuts", key);
  if (pressed !== null) made.setAttribute("aria-pressed", String(pressed));
  made.disabled = disabled;
  made.onclick = act;
  return made;
}

// Keeps the focus where it was, of what is made anew.
export function replaced(id, made) {
  const before = [...at(id).children].indexOf(document.activeElement);
  at(id).replaceChildren(...made);
  if (before >= 0) at(id).children[before]?.focus();
}

// What is marked and said of a trial that is not answered yet: it outlives a reload of this tab.
export function draft(trial, said, marks) {
  sessionStorage.setItem("draft", JSON.stringify({ trial, said, marks }));
}
export function drafted(trial) {
  const found = JSON.parse(sessionStorage.getItem("draft") ?? "{}");
  return found.trial === trial ? found : { said: "", marks: [] };
}
