// The numbers come through Throughline, and so does who serves this page: each node
// that welcomes it says so in the page's own channel. What the nodes' processes do is
// asked of the program that started them, as it has to be known when they are dead.
import { bearer } from "./realtime/auth.js";
import { connect } from "./realtime/client.js";

const SHOWN = 40; // numbers, the last one first
const LOGGED = 6; // lines
const ASK = 500; // ms between two looks at the processes
const CARRIERS = { websocket: "WebSocket", sse: "SSE", poll: "Long-poll" };
const NAMES = { ws: "websocket", sse: "sse", poll: "poll" }; // as the server calls them

const $ = (id) => document.getElementById(id);
const inFull = (n) => n.toLocaleString("en");
const me = "page-" + Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
const client = connect("realtime", { auth: bearer(() => me) });

const count = { received: 0, missing: 0, repeated: 0, gaps: 0 };
const welcomes = {}; // by carrier: the node that welcomed this page last
const recent = [];
let last, lastAt, serving, snapshot;

/** Text that stays the same is not written again: it would be read out again. */
function put(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

// The numbers

function take({ data: { n }, gap }) {
  if (gap) {
    count.gaps++;
    note(`The server told of a gap: ${gap.reason}`);
    last = undefined; // what lies before is known to be missing
  }
  count.received++;
  if (last !== undefined && n <= last) {
    count.repeated++;
  } else {
    if (last !== undefined) count.missing += n - last - 1;
    last = n;
  }
  const pause = Date.now() - (lastAt ?? Date.now());
  if (pause > 1000) note(`Nothing came for ${(pause / 1000).toFixed(1)} s; then ${inFull(n)} did, the next number`);
  lastAt = Date.now();
  recent.unshift({ n, node: serving });
  if (recent.length > SHOWN) recent.pop();
  draw();
}

let drawn = true;

function draw() {
  if (drawn) requestAnimationFrame(showNumbers); // a page that catches up gets many at once
  drawn = false;
}

function showNumbers() {
  drawn = true;
  for (const name in count) put($(name), inFull(count[name]));
  for (const name of ["missing", "repeated"]) $(name).classList.toggle("wrong", count[name] > 0);
  $("numbers").replaceChildren(
    ...recent.map(({ n, node }) => {
      const item = document.createElement("li");
      item.textContent = n;
      if (node) item.dataset.node = node;
      return item;
    }),
  );
}

// Who serves

function serves() {
  const { name, transport } = client.state;
  const node = name !== "online" ? undefined : transport === "poll" ? "all of them" : welcomes[transport];
  put($("node"), node ?? "nobody just now");
  $("served").dataset.node = node ?? "";
  put($("carrier"), name === "online" ? `over ${CARRIERS[transport]}` : "it comes back by itself");
  if (node && node !== serving) note(`Served by ${node}, over ${CARRIERS[transport]}`);
  if (node) serving = node;
  if (snapshot) showNodes();
}

function note(words) {
  const item = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = new Date().toLocaleTimeString("en-GB");
  item.append(time, words);
  $("log").prepend(item);
  while ($("log").children.length > LOGGED) $("log").lastChild.remove();
}

// The processes

const rows = new Map();

function row(name) {
  if (!rows.has(name)) {
    const item = $("a-node").content.firstElementChild.cloneNode(true);
    item.dataset.node = name;
    item.querySelector("b").textContent = name;
    item.querySelector("button").addEventListener("click", () => order(item.dataset.state === "up" ? "kill" : "start", { node: name }));
    $("nodes").append(item);
    rows.set(name, item);
  }
  return rows.get(name);
}

function showNodes() {
  for (const { name, state, pid, open, served, kills } of snapshot.nodes) {
    const item = row(name);
    item.dataset.state = state;
    item.classList.toggle("mine", name === $("node").textContent);
    put(item.querySelector(".state"), { up: `runs, process ${pid}`, down: "is dead", starting: "starts…" }[state]);
    put(item.querySelector(".sub"), `${inFull(open)} open, ${inFull(served)} served` + (kills ? `, killed\u00a0${kills}×` : ""));
    put(item.querySelector("button"), state === "up" ? "Kill" : "Start");
    item.querySelector("button").disabled = state === "starting";
  }
  const { published, repeats, every, cut } = snapshot;
  put($("publisher"), `Published: ${inFull(published)}` + (repeats ? `, tried again ${inFull(repeats)}×` : ""));
  $("every").setAttribute("aria-pressed", every > 0);
  put($("every"), every > 0 ? `Stop killing one every ${every / 1000} s` : "Kill one every 3 s");
  $("cut").disabled = cut > 0;
  put($("cut"), cut > 0 ? `Redis is cut: ${Math.ceil(cut / 1000)} s` : "Cut Redis for 5 s");
  $("kill-mine").disabled = !snapshot.nodes.some(({ name, state }) => name === $("node").textContent && state === "up");
}

async function look() {
  try {
    const answer = await fetch("cluster/state");
    snapshot = await answer.json();
    showNodes();
  } catch {
    // the program has ended; the state of the connection says so
  }
}

async function order(what, members = {}) {
  try {
    const answer = await fetch(`cluster/${what}`, { method: "POST", body: new URLSearchParams(members) });
    if (!answer.ok) throw new Error(await answer.text());
    $("trouble").hidden = true;
  } catch (error) {
    put($("trouble"), error.message);
    $("trouble").hidden = false;
  }
  await look();
}

client.onState((state) => {
  document.body.dataset.connection = state.name;
  put($("connection-text"), { online: `Online, ${CARRIERS[state.transport]}`, failed: "Refused", closed: "Closed", waiting: "Comes back" }[state.name] ?? "Connecting…");
  serves();
});
client.channel(`$page:${me}`, { after: "last=1" }).subscribe(({ data }) => {
  welcomes[NAMES[data.transport]] = data.node;
  serves();
});
client.channel("ticks").subscribe(take);

document.querySelectorAll("[name=carrier]").forEach((radio) => radio.addEventListener("change", () => void (client.transports = [radio.value])));
$("kill-mine").addEventListener("click", () => {
  note(`Killed: ${$("node").textContent}`);
  order("kill", { node: $("node").textContent });
});
$("every").addEventListener("click", () => order("every", { switch: $("every").getAttribute("aria-pressed") === "true" ? "off" : "on" }));
$("cut").addEventListener("click", () => {
  note("Redis is cut off for 5 s");
  order("cut");
});
setInterval(look, ASK);
look();
