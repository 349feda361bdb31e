// The page: which model, what to work on, how far it is, and what came of it. It asks its own server and nobody else.

import { members, packed } from "./archive.js";
import { image, MAPS, stacked, Viewer } from "./viewer.js";
import { possible, Volume } from "./volume.js";

const at = (id) => document.getElementById(id);
const EVERY = 400; // ms between two questions how far the work is
let models = [], token = "", files = [], others = {}, request = null, saved = "";
let drawing = null, last = null; // what is drawn of noise now, and was before: what it was told, and its images

const viewer = new Viewer(at("canvas"), follow);
const volume = new Volume(at("volume"), (slice) => { if (slice !== viewer.slice) viewer.set({ slice }); });

const model = () => models.find((each) => each.name === at("model").value);
const headers = () => (token ? { Authorization: `Bearer ${token}` } : {});
const state = (name) => { document.body.dataset.state = name; };

async function open() {
  const answer = await fetch("/v1/models", { headers: headers() }).catch(() => null);
  at("entry").hidden = answer?.status !== 401;
  if (answer?.status === 401) {
    if (token) fail("The token is wrong.");
    at("token").focus();
    return state("locked");
  }
  if (answer?.status !== 200) {
    at("about").textContent = answer ? "The models are being opened …" : "The server does not answer.";
    setTimeout(open, 1000);
    return;
  }
  fail("");
  models = (await answer.json()).models.filter((each) => each.tasks.some((task) => task !== "infer"));
  at("model").replaceChildren(...models.map((each) => new Option(each.name, each.name)));
  at("model").disabled = !models.length;
  if (models.length) choose(); else at("about").textContent = "Its models take tensors alone; see /v2.";
  state("ready");
}

function choose() {
  const chosen = model(), applies = chosen.tasks.includes("apply");
  at("about").textContent = `${chosen.model} ${chosen.hash}` +
    (applies ? ` · ${Object.values(chosen.directions).join(", ")}` : ` · ${chosen.size.join(" × ")}, ${chosen.sampling}`);
  at("images").hidden = !applies;
  at("words").hidden = applies;
  at("notes").replaceChildren(...chosen.cautions.map(item));
  others = {};
  at("others").replaceChildren(...(applies ? chosen.auxiliary : []).map(contrast));
  const ways = Object.entries(chosen.directions);
  at("direction").replaceChildren(...ways.map(([way, name]) => new Option(name, way)));
  at("directions").hidden = ways.length < 2;
  at("prompts").hidden = !chosen.conditions.includes("text");
  at("labels").hidden = !chosen.classes.length;
  at("label").replaceChildren(new Option("any", ""), ...chosen.classes.map((each) => new Option(each, each)));
  at("counts").hidden = chosen.size.length > 2;
}

const item = (text) => Object.assign(document.createElement("li"), { textContent: text });

/** Where another contrast of the patient is dropped, for a model that sees it beside the image. */
function contrast(name) {
  const field = document.createElement("label"), input = document.createElement("input"), told = document.createElement("span");
  const title = Object.assign(document.createElement("strong"), { textContent: name });
  field.className = "drop";
  field.dataset.contrast = name;
  Object.assign(input, { type: "file", multiple: true, onchange: () => take(input.files, name) });
  told.setAttribute("role", "status");
  field.append(title, " of the same patient, if there is one ", told, input);
  return field;
}

/** What was chosen: of the image, or of another contrast. */
function take(given, name = "") {
  const chosen = [...given], bytes = chosen.reduce((sum, file) => sum + file.size, 0);
  const told = name ? field(name).querySelector("span") : at("chosen");
  told.textContent = chosen.length ? `${chosen.length} file${chosen.length > 1 ? "s" : ""}, ${size(bytes)}` : "";
  if (name) others[name] = chosen; else files = chosen;
  at("apply").disabled = !files.length;
}

const field = (name) => [...at("others").children].find((each) => each.dataset.contrast === name);

const size = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

/** The files that were dropped, those in folders among them. */
async function dropped(transfer) {
  const entries = [...transfer.items].map((each) => each.webkitGetAsEntry?.()).filter(Boolean), found = [];
  if (!entries.length) return [...transfer.files];
  while (entries.length) {
    const entry = entries.pop();
    if (entry.isFile) found.push(await new Promise((ok, no) => entry.file(ok, no)));
    else for (let more, reader = entry.createReader(); (more = await new Promise((ok, no) => reader.readEntries(ok, no))).length;) entries.push(...more);
  }
  return found.filter((file) => !file.name.startsWith("."));
}

function work(path, body, type) {
  const number = crypto.getRandomValues(new Uint32Array(4)).join("-");
  request = new XMLHttpRequest();
  const own = request;
  own.open("POST", path);
  own.responseType = "arraybuffer";
  for (const [name, value] of Object.entries({ ...headers(), "X-Request-ID": number, ...type })) own.setRequestHeader(name, value);
  fail("");
  state("working");
  at("busy").hidden = false;
  far("Sending", 0);
  own.upload.onprogress = (event) => far("Sending", event.loaded / event.total);
  own.upload.onload = () => {
    far("Waiting");
    const asking = setInterval(async () => {
      if (own.readyState >= 3) return clearInterval(asking);
      const answer = await fetch(`/v1/progress/${number}`, { headers: headers() }).catch(() => null);
      const said = answer?.ok && own.readyState < 3 ? await answer.json() : {};
      if (said.state === "waiting") far(`Waiting, ${said.ahead} before it`);
      if (said.state === "running") far("Working", said.total ? said.done / said.total : undefined);
    }, EVERY);
    own.addEventListener("loadend", () => clearInterval(asking));
  };
  own.onprogress = (event) => { if (event.lengthComputable) far("Receiving", event.loaded / event.total); };
  own.onload = () => {
    try {
      if (own.status === 200) shown(own); else fail(said(own), own.getResponseHeader("retry-after"));
    } catch (error) { fail(`The answer cannot be shown: ${error.message}`); }
  };
  own.onerror = () => fail("The server does not answer.");
  own.onabort = () => state("ready");
  own.onloadend = () => { at("busy").hidden = true; };
  own.send(body);
}

function said(answered) {
  try { return JSON.parse(new TextDecoder().decode(answered.response)).error; } catch { return `The server answered ${answered.status}.`; }
}

function far(what, share) {
  at("far").textContent = share === undefined ? what : `${what} ${Math.round(share * 100)} %`;
  if (share === undefined) at("bar").removeAttribute("value"); else at("bar").value = share;
}

function fail(line, again) {
  at("error").hidden = !line;
  at("error").textContent = line + (again ? ` (again in ${again} s)` : "");
  if (line) state("failed");
}

function shown(answered) {
  const all = members(answered.response);
  const named = (name) => all.find((each) => each.name === name)?.content;
  const about = JSON.parse(new TextDecoder().decode(named("view/view.json")));
  const images = Object.fromEntries(Object.entries(about).map(([name, each]) => [name, image(each, named(`view/${name}.u16`))]));
  at("look").hidden = false;
  viewer.show(compared(images.after ? images : { after: stacked(Object.values(images)) }));
  at("solid").hidden = viewer.main.depth < 2 || viewer.main.several || !possible();
  solid(false);
  const result = all.filter((each) => !each.name.startsWith("view/"));
  save(result.filter((each) => each.name !== "result.json"), result);
  at("notes").replaceChildren(...JSON.parse(answered.getResponseHeader("fabrica-notes") ?? "[]").map(item));
  state("done");
  at("canvas").focus({ preventScroll: true });
  if (matchMedia("(max-width: 46rem)").matches) at("look").scrollIntoView();
}

/** What was made, beside what the same seeds gave when they were told something else. */
function compared(made) {
  const before = drawing && last && ["model", "seed", "n"].every((key) => drawing[key] === last.told[key]) ? last.after : null;
  last = drawing && { told: drawing, after: made.after };
  return before && at("beside").checked ? { before, ...made } : made;
}

/** The one file that was made, or an archive of all. */
function save(made, all) {
  URL.revokeObjectURL(saved);
  const [one] = made;
  saved = URL.createObjectURL(made.length === 1 ? new Blob([one.content]) : packed(all));
  at("save").href = saved;
  at("save").download = `${model().name}-${made.length === 1 ? one.name.split("/").pop() : "result.zip"}`;
}

/** From all sides, or slice by slice. */
function solid(on) {
  at("solid").setAttribute("aria-pressed", String(on));
  at("volumes").hidden = !on;
  at("canvas").hidden = on;
  if (on) drawVolume(); else viewer.draw();
}

const drawVolume = () => volume.show(viewer).catch((error) => { solid(false); at("solid").hidden = true; fail(error.message); });

/** What stands around the image follows it. */
function follow() {
  if (!viewer.main) return;
  if (!at("volumes").hidden) drawVolume();
  const { depth } = viewer.main, round = (value) => +value.toPrecision(5);
  at("where").value = `${viewer.main.several ? "Image" : "Slice"} ${viewer.slice + 1} of ${depth}`;
  Object.assign(at("slice"), { max: depth - 1, value: viewer.slice });
  at("scroll").hidden = depth < 2;
  if (document.activeElement !== at("centre")) at("centre").value = round(viewer.window[0]);
  if (document.activeElement !== at("width")) at("width").value = round(viewer.window[1]);
  at("value").value = viewer.under;
  const modes = viewer.modes(), names = [...at("modes").children].map((each) => each.textContent);
  if (names.join() !== modes.join()) {
    at("modes").replaceChildren(...modes.map((mode, k) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: mode, title: `Key ${k + 1}` });
      button.setAttribute("role", "radio");
      button.onclick = () => viewer.set({ mode });
      return button;
    }));
    at("modes").hidden = modes.length < 2;
  }
  for (const button of at("modes").children) button.setAttribute("aria-checked", String(button.textContent === viewer.mode));
  at("strengths").hidden = !(viewer.labels || viewer.mode === "Difference" || viewer.mode in MAPS);
  const more = at("solid").hidden ? "" : " · v volume";
  at("keys").textContent = at("volumes").hidden
    ? `drag: window · ↑ ↓ slices · ← → slider · 1–6 what is shown · r reset${more}`
    : "click: crosshair · drag with the right button: window · drag the volume to turn it · 1–6 what is shown · v slices";
}

at("entry").onsubmit = (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  open();
};
at("model").onchange = choose;
at("files").onchange = () => take(at("files").files);
at("images").onsubmit = (event) => {
  event.preventDefault();
  const form = new FormData();
  for (const file of files) form.append("files", file, file.name);
  for (const [name, chosen] of Object.entries(others)) for (const file of chosen) form.append(name, file, file.name);
  drawing = null;
  const asked = { model: model().name, view: "1", direction: at("direction").value, uncertainty: at("doubt").checked ? "1" : "0", explain: at("why").checked ? "1" : "0" };
  work(`/v1/apply?${new URLSearchParams(asked)}`, form, {});
};
at("words").onsubmit = (event) => {
  event.preventDefault();
  const many = model().size.length > 2 ? 1 : Number(at("count").value);
  const asked = { model: model().name, seed: Number(at("seed").value), n: many, view: true };
  if (!at("prompts").hidden && at("prompt").value.trim()) asked.prompt = at("prompt").value.trim();
  if (!at("labels").hidden && at("label").value) asked.label = at("label").value;
  drawing = asked;
  work("/v1/sample", JSON.stringify(asked), { "Content-Type": "application/json" });
};
at("cancel").onclick = () => request?.abort();
at("slice").oninput = () => viewer.set({ slice: Number(at("slice").value) });
at("strength").oninput = () => viewer.set({ strength: Number(at("strength").value) / 100 });
at("reset").onclick = () => viewer.reset();
at("solid").onclick = () => solid(at("volumes").hidden);
at("volume").addEventListener("keydown", (event) => viewer.key(event));
at("look").addEventListener("keydown", (event) => {
  if (event.key !== "v" || event.target.tagName === "INPUT" || at("solid").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  solid(at("volumes").hidden);
  at(at("volumes").hidden ? "canvas" : "volume").focus({ preventScroll: true });
});
for (const [id, k] of [["centre", 0], ["width", 1]]) {
  at(id).oninput = () => {
    const value = Number(at(id).value);
    if (at(id).value !== "" && (k === 0 || value > 0)) viewer.set({ window: viewer.window.map((old, i) => (i === k ? value : old)) });
  };
}
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, async (event) => {
    event.preventDefault();
    const over = event.target.closest?.("[data-contrast]") ?? at("drop");
    for (const each of document.querySelectorAll(".drop")) each.classList.toggle("over", name === "dragover" && each === over);
    if (name === "drop" && !at("images").hidden) take(await dropped(event.dataTransfer), over.dataset.contrast);
  });
}
open();
