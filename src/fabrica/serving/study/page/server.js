// What is asked of the server, and images of trials fetched before they are shown.
export const fresh = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("");

let token = "";

// The secret of the reader's link, which stands behind # and is sent with every question; "" where there is none.
export function entered() {
  token = decodeURIComponent(location.hash.slice(1)) || token;
  return token;
}

export function forgotten() {
  token = "";
  history.replaceState(null, "", location.pathname);
}

export class Refused extends Error {
  constructor(status, line) {
    super(line);
    this.status = status;
  }
}

export async function ask(path, body) {
  const found = await fetch(path, {
    method: body ? "POST" : "GET", body: body && JSON.stringify(body), cache: "no-store", redirect: "error",
    headers: { Authorization: `Bearer ${token}`, ...(body && { "Content-Type": "application/json" }) },
  });
  if (!found.ok) throw new Refused(found.status, (await found.json().catch(() => ({}))).error ?? String(found.status));
  return found;
}

export function device() {
  let known = localStorage.getItem("device");
  if (!known) localStorage.setItem("device", (known = fresh().slice(0, 10)));
  return `${known} ${screen.width}x${screen.height}${navigator.maxTouchPoints ? " touch" : ""}`;
}

// Images of the trial that is next and of those that follow; what is behind is let go.
export class Ahead {
  #images = new Map();

  keep(trials) {
    for (const name of this.#images.keys()) if (!trials.some((each) => each.trial === name)) this.#images.delete(name);
  }

  has(trial) {
    return this.#images.has(trial.trial);
  }

  of(trial) {
    if (!this.has(trial)) {
      const found = Promise.all(trial.images.map(async (each, k) => {
        const answer = await ask(`/v1/trials/${trial.trial}/images/${k}`);
        return { ...each, data: await answer.arrayBuffer() };
      }));
      found.catch(() => this.#images.delete(trial.trial));
      this.#images.set(trial.trial, found);
    }
    return this.#images.get(trial.trial);
  }
}
