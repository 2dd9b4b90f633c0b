// What the pages of the end-to-end tests do. The tests call these functions and
// read `seen`; nothing here judges.

/** By name of the listener: what its application code was handed, in order. */
const seen = {};

/** Resolves when a condition holds. */
async function until(condition) {
  while (!condition()) await new Promise((again) => setTimeout(again, 5));
}

/** Listens with a native EventSource. */
function hear(name, url, ...types) {
  const list = (seen[name] = []);
  const source = new EventSource(url);
  list.opens = 0;
  list.errors = 0;
  const take = ({ type, lastEventId: id, data }) => list.push({ type, id, data });
  for (const type of ["message", "throughline.gap", ...types]) source.addEventListener(type, take);
  source.onopen = () => list.opens++;
  source.onerror = () => list.errors++;
  list.source = source;
}

/** Listens with a native WebSocket. */
function hearSocket(name, url) {
  const list = (seen[name] = []);
  const socket = new WebSocket(url);
  list.opens = 0;
  list.closes = 0;
  socket.onopen = () => list.opens++;
  socket.onmessage = ({ data }) => list.push(JSON.parse(data));
  socket.onclose = () => list.closes++;
  list.source = socket;
}

/** Fetches, and tells what a page may see of the answer. */
async function ask(url, init) {
  try {
    const response = await fetch(url, init);
    return { status: response.status, body: await response.text() };
  } catch (error) {
    return { error: String(error) };
  }
}

/** Sends without being allowed to read the answer, as a form does: nobody asks the server first. */
const askBlindly = (url, init) => ask(url, { ...init, mode: "no-cors" });

/** Short times for the client, so that a test sees in seconds what takes minutes. */
const hasty = {
  base: 50, cap: 300, prompt: 20, stagger: 200, join: 200, soon: 200, upward: [300], spread: 50, wait: 2000, connect: 2000,
};

let client;
const states = []; // all that the client was in, and when
const told = { published: 0, refused: [] };

/** Connects with the bundled client, or with another build of it. */
async function start(base, options = {}, connect) {
  connect ??= (await import(base + "/client.js")).connect;
  client = connect(base, { timing: hasty, ...options });
  const began = Date.now();
  const note = (state) => states.push({ after: Date.now() - began, ...state });
  note(client.state);
  client.onState(note);
}

/** Loads a classic script. */
function load(src) {
  return new Promise((resolve, reject) => document.head.append(Object.assign(document.createElement("script"), { src, onload: resolve, onerror: reject })));
}

/** By name of the listener: the handle it iterates over. */
const handles = {};

/**
 * Has a listener go on after the next reload: at the position that its handle has when the page goes. What came after that
 * position is not kept, as it has to come again.
 */
function keepOverReload(name) {
  addEventListener("pagehide", () => {
    const { position } = handles[name];
    const end = seen[name].findIndex((event) => event.position === position);
    sessionStorage.setItem(name, JSON.stringify({ position, list: seen[name].slice(0, end + 1) }));
  });
}

/** Goes on with a listener that was kept, with what it was handed before. */
function followOn(name, channel) {
  const { position, list } = JSON.parse(sessionStorage.getItem(name));
  void follow(name, channel, { after: position });
  seen[name].push(...list);
}

/** Iterates over a channel. */
async function follow(name, channel, options) {
  const list = (seen[name] = []);
  const handle = (handles[name] = client.channel(channel, options));
  for await (const event of handle) {
    list.push({ at: Date.now(), position: event.position, type: event.type, data: event.data, gap: event.gap });
  }
}

/** Publishes {author, n} at a pace, without waiting for the answers, until `told.stop`. */
function speak(channel, author, pace) {
  const handle = client.channel(channel);
  let n = 0;
  told.stop = () => clearInterval(timer);
  const timer = setInterval(() => {
    handle.publish({ author, n: ++n }).then(
      () => told.published++,
      (error) => told.refused.push(`${n}: ${error}`),
    );
    told.sent = n;
  }, pace);
}

/** The transport that feeds now, or the name of the state. */
const carrier = () => client.state.transport ?? client.state.name;
