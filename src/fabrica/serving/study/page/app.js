// The reader's page: the trial that is next, its answer, stored by the server before the next is shown.
import { listen, SAYS } from "/page/keys.js";
import { at, button, draft, drafted, replaced, words } from "/page/parts.js";
import { Ahead, ask, device, entered, forgotten, fresh, Refused } from "/page/server.js";
import { Viewer } from "/page/viewer.js";
import { say, turn } from "/page/words.js";

const images = new Ahead();
let study = null, state = null, viewer = null, shown = "";
let said = "", busy = false, pending = null, right = null, resting = false, status = "";

// --- time: it runs while the images of a trial are there, and the page is seen
let seconds = 0, since = null;
const held = () => busy || Boolean(pending) || Boolean(right);  // nothing is answered now
const runs = () => document.visibilityState === "visible" && !resting && shown && !held();
function clock() {
  if (since !== null) seconds += (performance.now() - since) / 1000;
  since = runs() ? performance.now() : null;
}
document.addEventListener("visibilitychange", clock);

function go(to) {
  document.body.dataset.state = to;
  draw();
}

async function open() {
  clearError();
  if (!entered()) return go("token");
  go("opening");
  try {
    const found = await (await ask("/v1/session")).json();
    study = found.study;
    study.reader = found.reader;
    viewer ??= new Viewer(at("images"), study.image, viewed, () => choose("lesion"));
    viewer.adjust = study.adjust !== false;
    await take(found);
  } catch (error) {
    failed(error, open);
  }
}

// What the server says of where the reader stands.
async function take(found) {
  state = found;
  images.keep([state.trial, ...state.ahead].filter(Boolean));
  if (!state.trial) {
    clock();
    shown = "";
    viewer.clear();
    return go("done");
  }
  await show();
}

async function show() {
  const trial = state.trial;
  clock();
  shown = said = "";
  if (!images.has(trial)) go("loading");
  try {
    const found = await images.of(trial);
    if (state.trial !== trial) return;
    const many = found.length > 1;
    viewer.tool = study.kind === "detection" ? study.mark : "";
    viewer.show(found, found.map((_, k) => (many ? say("imageOf", k + 1, found.length) : say("image"))));
    ({ said, marks: viewer.marks } = drafted(trial.trial));
    seconds = 0;
    since = null;
    shown = trial.trial;
    clock();
    go(resting ? "paused" : "ready");
    viewer.draw();
    for (const each of state.ahead) images.of(each).catch(() => {});
  } catch (error) {
    failed(error, show);
  }
}

function answer(given) {
  if (held() || resting || !shown) return;
  clock();
  send("/v1/answer", { trial: shown, answer: given, seconds: Math.round(seconds * 1000) / 1000 });
}

function undo() {
  if (busy || pending || resting || !state?.may_undo) return;
  send("/v1/undo", {});
}

// A message keeps its name until it is acknowledged, so that it can be sent again.
function send(path, body) {
  pending = { path, body: { ...body, request: fresh(), device: device() } };
  deliver();
}

async function deliver() {
  if (busy || !pending) return;
  busy = true;
  clock();
  clearError();
  status = say("saving");
  go("saving");
  const { path, body } = pending;
  try {
    const found = await (await ask(path, body)).json();
    const taken = path === "/v1/undo";
    pending = null;
    busy = false;
    status = say(taken ? "takenBack" : "stored");
    right = null;
    if (found.feedback) {
      right = found.feedback;
      state = found;
      viewer.tool = "";
      viewer.boxes = right.boxes ?? [];
      if (right.boxes?.length) viewer.slice = right.boxes[0][0];
      go("feedback");
      viewer.draw();
      at("next").focus();
    } else await take(found);
  } catch (error) {
    busy = false;
    clock();
    if (error.status === 409) {
      pending = right = null;
      await open();
      status = say("behind");
      draw();
    } else failed(error, deliver);
  }
}
window.addEventListener("online", deliver);

function onward() {
  if (!right || busy) return;
  right = null;
  status = "";
  take(state);
}

// --- what went wrong
let again = null;
const AGAIN = 5000;  // milliseconds
function failed(error, retry) {
  if (error.status === 401) {
    forgotten();
    status = say("badToken");
    return go("token");
  }
  again = retry;
  const lost = !(error instanceof Refused) || error.status >= 500 || error.status === 429;
  at("errorText").textContent = lost && pending && error.status !== 507 ? say("lost") : say("failed", error.message);
  at("error").hidden = false;
  status = "";
  if (lost && pending) setTimeout(deliver, AGAIN);
  if (!lost) pending = null;  // what the server does not take, it would not take again
  go(shown && !pending && !lost ? "ready" : "failed");
  if (!lost) again = open;
}
function clearError() {
  at("error").hidden = true;
}

// --- what is seen
function answers() {
  const off = held();
  if (study.kind === "clarity")
    return study.scale.map((word, k) => button(String(k + 1), word, null, () => answer({ score: k + 1 }), off));
  if (study.kind === "preference") {
    const found = Array.from({ length: study.side_by_side }, (_, k) =>
      button(String(k + 1), say("imageOf", k + 1, study.side_by_side), null, () => answer({ choice: k + 1 }), off));
    return study.ties ? [...found, button("0", say("noDifference"), null, () => answer({ choice: 0 }), off)] : found;
  }
  return study.confidence.map((word, k) => button(String(k + 1), word, null, () => sure(k + 1), off || !said));
}

function choose(what) {
  if (held() || resting || !shown) return;
  said = what;
  draft(shown, said, viewer.marks);
  if (what === "none") while (viewer.marks.length) viewer.unmark();
  draw();
}

function sure(confidence) {
  if (!said) return;
  const marks = study.kind === "detection" ? { marks: viewer.marks } : {};
  answer({ says: said, confidence, ...marks });
}

function draw() {
  const now = document.body.dataset.state, known = study && state;
  const looks = ["ready", "saving", "feedback", "loading", "failed"].includes(now) && known && (shown || now === "loading");
  document.title = at("title").textContent = study?.title || say("name");
  at("entry").hidden = now !== "token";
  at("trial").hidden = !looks;
  at("help").hidden = !looks;
  at("status").textContent = now === "loading" ? say("loading") : status;
  at("resting").hidden = !["paused", "done"].includes(now);
  at("restingTitle").textContent = now === "done" ? say("done") : say("paused");
  at("restingMore").textContent = now === "done" ? say("doneMore") : "";
  at("resume").hidden = now === "done";
  at("resume").textContent = say("resume");
  at("pause").disabled = !["ready", "paused"].includes(now);
  at("pause").textContent = say(resting ? "resume" : "pause");
  if (!known) return;
  at("who").textContent = `${say("reader")} ${study.reader}`;
  at("far").hidden = false;
  at("progress").textContent = say("progress", Math.min(state.done + (right ? 0 : 1), state.total), state.total);
  Object.assign(at("bar"), { max: state.total, value: state.done });
  at("undo").disabled = busy || Boolean(pending) || resting || !state.may_undo;
  if (!looks) return;
  at("question").textContent = study.question;
  at("practice").hidden = !(right || state.trial?.practice);
  at("practice").textContent = say("practice");
  at("images").className = viewer.tool ? "marks" : "";
  const choices = Object.entries(SAYS[study.kind] ?? {});
  at("says").hidden = at("sure").hidden = !choices.length || Boolean(right);
  replaced("says", choices.map(([key, what]) =>
    button(key, say(what), said === what, () => choose(what), held())));
  at("sure").textContent = said ? say("sure") : say("firstSay");
  replaced("answers", answers());
  at("answers").hidden = Boolean(right);
  at("feedback").hidden = !right;
  const words = right?.right ?? [];
  at("right").textContent = words.length ? say("right", words.map(named).join(", ")) : say("noRight");
}

// What is right, as the buttons call it.
function named(value) {
  if (study.kind === "clarity") return `${value} ${study.scale[value - 1] ?? ""}`.trim();
  if (study.kind === "preference") return value ? say("imageOf", value, study.side_by_side) : say("noDifference");
  return say(String(value)) ?? String(value);
}

// The tools say what the view is.
function viewed() {
  if (shown) draft(shown, said, viewer.marks);
  at("sliceBox").hidden = viewer.depth < 2;
  Object.assign(at("slice"), { max: viewer.depth, value: viewer.slice + 1 });
  at("sliceWord").textContent = `${say("slice")} ${viewer.slice + 1} / ${viewer.depth}`;
  at("windowBox").hidden = !viewer.adjust;
  at("centre").value = 1 - viewer.centre;  // brighter to the right
  at("width").value = -viewer.width;  // more contrast to the right
  at("markBox").hidden = study.kind !== "detection" || Boolean(right);
  at("mark").setAttribute("aria-pressed", String(Boolean(viewer.tool)));
  at("unmark").disabled = !viewer.marks.length;
  at("marks").textContent = say("marks", viewer.marks.length);
  at("how").textContent = study.mark === "box" ? say("howBox") : say("howClick");
}

function marking() {
  if (study?.kind !== "detection" || right) return;
  viewer.tool = viewer.tool ? "" : study.mark;
  draw();
  viewer.draw();
}

function pause() {
  if (!["ready", "paused"].includes(document.body.dataset.state)) return;
  clock();
  resting = !resting;
  clock();
  go(resting ? "paused" : "ready");
  viewer.draw();
  at(resting ? "resume" : "pause").focus();
}

at("entry").onsubmit = (event) => {
  event.preventDefault();
  const given = at("token").value.trim();
  at("token").value = "";
  status = "";
  history.replaceState(null, "", `${location.pathname}#${given.slice(given.indexOf("#") + 1)}`);
  open();
};
window.addEventListener("hashchange", () => location.reload());
Object.assign(at("undo"), { onclick: undo });
at("pause").onclick = at("resume").onclick = pause;
at("language").onclick = () => {
  turn();
  status = "";
  words();
  draw();
  if (shown) viewed();
};
at("again").onclick = () => (clearError(), again?.());
at("next").onclick = onward;

listen({
  viewer: () => viewer, study: () => study, shown: () => shown, right: () => right, resting: () => resting,
  choose, undo, pause, marking,
});

words();
open();
