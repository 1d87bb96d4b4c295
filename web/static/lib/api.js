// Talks to the agent: requests, and the live stream.

export class Refusal extends Error {
  constructor(problem) {
    super(problem.detail || "the agent did not answer");
    this.problem = problem;
  }
}

// call asks the agent. The answer is the JSON of it; text or bytes when such a type was asked for.
export async function call(method, path, body, accept, headers = {}) {
  const options = { method, headers: { ...headers, ...(accept ? { Accept: accept } : {}) }, credentials: "same-origin" };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch("/api/v1" + path, options);
  } catch {
    throw new Refusal({ status: 0, detail: "the agent cannot be reached" });
  }
  if (response.ok && accept === "application/octet-stream") return response.arrayBuffer();
  const text = await response.text();
  let answer = {};
  try { answer = text ? JSON.parse(text) : {}; } catch { /* plain text */ }
  if (!response.ok) throw new Refusal({ status: response.status, detail: response.statusText, ...answer });
  return accept ? text : answer;
}

// Stream calls back for every frame and every change of the connection. It
// connects again by itself, ever more slowly up to 10 s.
export class Stream {
  constructor(topics, onFrame, onState) {
    Object.assign(this, { topics, onFrame, onState, wait: 500, stopped: false });
  }

  start() {
    if (this.stopped) return;
    this.onState("connecting");
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = this.socket = new WebSocket(`${scheme}//${location.host}/api/v1/stream`);
    socket.onopen = () => {
      this.wait = 500;
      socket.send(JSON.stringify({ op: "sub", topics: this.topics.map((name) => ({ name })) }));
    };
    socket.onmessage = (message) => {
      this.onState("live");
      this.onFrame(JSON.parse(message.data));
    };
    socket.onclose = () => {
      if (this.stopped) return;
      this.onState("lost");
      this.timer = setTimeout(() => this.start(), this.wait * (0.75 + Math.random() / 2));
      this.wait = Math.min(this.wait * 2, 10000);
    };
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
    this.socket?.close();
  }
}

// follow reads a growing output until it ends or the signal says stop.
export async function follow(path, signal, onText) {
  const response = await fetch("/api/v1" + path, { signal, credentials: "same-origin" });
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Refusal({ status: response.status, detail: response.statusText, ...problem });
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    onText(value);
  }
}
