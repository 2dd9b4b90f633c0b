// What the page shows comes to it through Throughline, as everything else does:
// a snapshot of all clients each half second in one channel. It reads the numbers
// themselves, too, as one client more.
import { call } from "./realtime/call.js";
import { connect } from "./realtime/client.js";

const SHOWN = 120; // snapshots: a minute
const TOP = 1000; // events behind, at a strip's upper edge
const BEHIND = 30; // events, of a client that reads: too many to be on their way
const HIGH = 32; // of a strip, in its own units
const STATES = ["live", "stalled", "evicted", "trial", "caught-up", "connecting"];
const CARRIERS = { ws: "WebSocket", websocket: "WebSocket", sse: "SSE", poll: "Long-poll" };
const OWN = "This page";

const $ = (id) => document.getElementById(id);
const client = connect("realtime");
const rows = new Map(); // by name: what shows a client
const own = { last: 0, missing: 0, repeated: 0, leftOut: 0, evictions: 0, told: false };
let snapshot;

// This page as a client

function count({ data: { n }, gap }) {
  if (gap) own.told = true;
  if (own.last && n <= own.last) return void own.repeated++;
  if (own.last) own[own.told ? "leftOut" : "missing"] += n - own.last - 1;
  Object.assign(own, { last: n, told: false });
}

function ownView() {
  const { name, transport, retryAt, reason } = client.state;
  const out = name === "waiting" && reason.code === "slow_consumer";
  return {
    ...own,
    name: OWN,
    carrier: transport ?? own.carrier,
    state: out ? "evicted" : name === "online" ? "live" : "connecting",
    reads: true,
    back: out ? Math.max(0, retryAt - Date.now()) : -1,
    lag: own.last ? Math.max(0, snapshot.published - own.last) : 0,
  };
}

// A client's row

function newRow(name) {
  const item = $("client").content.firstElementChild.cloneNode(true);
  const [turn, remove] = item.querySelectorAll("button");
  const strip = item.querySelector(".strip");
  const paths = STATES.map((state) => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", state);
    strip.append(path);
    return path;
  });
  item.dataset.name = name;
  item.querySelector(".who b").textContent = name;
  turn.addEventListener("click", () => order(row.view.reads ? "stall" : "read", { client: name }));
  remove.addEventListener("click", () => order("remove", { client: name }));
  item.querySelector("div.buttons").hidden = name === OWN;
  $("clients").append(item);
  const row = { item, turn, paths, past: [], view: undefined };
  return row;
}

/** What a state is called, and what there is to say about it. */
function inWords({ state, reads, back, lag }) {
  const seconds = Math.ceil(back / 1000);
  switch (state) {
    case "live": return ["Live", lag > BEHIND ? "falls behind" : "keeps up"];
    case "stalled": return ["Stalled", "reads nothing"];
    case "trial": return ["On trial", "catches up"];
    case "caught-up": return ["Caught up", "the trial is passed"];
    case "connecting": return ["Connecting", ""];
  }
  if (back > 0) return [`Evicted: back in ${seconds} s`, reads ? "is kept out, and waits" : "doesn't know, as it doesn't read"];
  if (reads) return ["Evicted", "comes back"];
  return ["Evicted", "may come back, but doesn't read"];
}

function show(row, view) {
  const { item, turn } = row;
  const [state, more] = inWords(view);
  if (row.view && row.view.state !== view.state) $("spoken").textContent = `${view.name}: ${inWords({ ...view, back: 0 })[0]}`;
  row.view = view;
  item.dataset.state = view.state;
  put(item.querySelector(".carrier"), (CARRIERS[view.carrier] ?? "–") + (view.modem ? ", 256 kbit/s" : ""));
  put(item.querySelector(".state b"), state);
  put(item.querySelector(".state span"), more);
  for (const name of ["last", "lag"]) put(item.querySelector(`.${name}`), view.last ? view[name].toLocaleString("en") : "–");
  put(item.querySelector(".evicted"), view.evictions ? `${view.evictions}×` : "–");
  putMissing(item.querySelector(".missing"), view);
  put(turn, view.reads ? "Stall" : "Let it read");
}

function putMissing(element, { missing, repeated, leftOut }) {
  let words = missing.toLocaleString("en");
  if (repeated) words += `, ${repeated} twice`;
  if (leftOut) words += ` (${leftOut} told)`;
  put(element, words);
  element.classList.toggle("wrong", missing + repeated > 0);
}

/** One path for each state; where a client is out, its bars are thin. */
function draw({ paths, past }) {
  const lines = STATES.map(() => "");
  past.forEach(({ state, lag }, i) => {
    const height = 2 + ((HIGH - 2) * Math.log(1 + Math.min(lag, TOP))) / Math.log(1 + TOP);
    const x = SHOWN - past.length + i;
    lines[STATES.indexOf(state)] += `M${x} ${HIGH}v${-height.toFixed(1)}h${state === "evicted" ? 0.6 : 1.04}V${HIGH}z`;
  });
  paths.forEach((path, i) => path.setAttribute("d", lines[i]));
}

// All of it

let asked = false;

function take({ data }) {
  snapshot = data;
  const views = [...data.clients, ownView()];
  const here = new Set(views.map(({ name }) => name));
  for (const [name, row] of rows) {
    if (here.has(name)) continue;
    row.item.remove();
    rows.delete(name);
  }
  for (const view of views) {
    if (!rows.has(view.name)) rows.set(view.name, newRow(view.name));
    const { past } = rows.get(view.name);
    rows.get(view.name).next = view;
    past.push({ state: view.state, lag: view.lag });
    if (past.length > SHOWN) past.shift();
  }
  if (!asked) requestAnimationFrame(render); // a page that is opened gets a minute of them at once
  asked = true;
}

function render() {
  asked = false;
  for (const row of rows.values()) {
    show(row, row.next);
    draw(row);
  }
  $("clients").append(rows.get(OWN).item); // the last
  const views = [...rows.values()].map(({ view }) => view);
  const sum = (member) => views.reduce((total, view) => total + view[member], 0);
  put($("published"), snapshot.published.toLocaleString("en"));
  put($("evictions"), sum("evictions").toLocaleString("en"));
  putMissing($("missing"), { missing: sum("missing"), repeated: sum("repeated"), leftOut: sum("leftOut") });
  const still = views.filter(({ reads }) => !reads).length;
  $("read").disabled = still === 0;
  put($("read"), still > 1 ? "Let them read again" : "Let it read again");
  $("stall").disabled = !snapshot.clients.some(({ reads, state }) => reads && state !== "evicted");
  const rate = document.querySelector(`[name=rate][value="${snapshot.rate}"]`);
  if (rate) rate.checked = true;
}

/** Text that stays the same is not written again: it would be read out again. */
function put(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

async function order(name, members = {}) {
  try {
    await call(client, name, members);
    $("trouble").hidden = true;
  } catch (error) {
    put($("trouble"), error.message);
    $("trouble").hidden = false;
  }
}

client.onState((state) => {
  document.body.dataset.connection = state.name;
  if (state.transport) own.carrier = state.transport;
  if (state.name === "waiting" && state.reason.code === "slow_consumer") own.evictions++;
  put($("connection-text"), { online: `Online, ${CARRIERS[state.transport]}`, failed: "Refused", closed: "Closed", waiting: "The server is away" }[state.name] ?? "Connecting…");
});

client.channel("ticks").subscribe(count);
client.channel("status", { after: `last=${SHOWN}` }).subscribe(take);
document.querySelectorAll("[name=rate]").forEach((radio) => radio.addEventListener("change", () => order("rate", { rate: Number(radio.value) })));
$("stall").addEventListener("click", () => order("stall"));
$("read").addEventListener("click", () => order("read"));
$("modem").addEventListener("click", () => order("modem"));
for (const carrier of ["ws", "sse"]) $(carrier).addEventListener("click", () => order("client", { carrier }));
