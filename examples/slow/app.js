// What the page shows comes to it through Throughline, as everything else does:
// a snapshot of all clients each half second in one channel. It reads the numbers
// themselves, too, as one client more. How far behind the server counts a client is
// what its inspector shows.
import { call } from "./realtime/call.js";
import { connect } from "./realtime/client.js";

const SHOWN = 120; // snapshots: a minute
const TOP = 10_000; // events behind, at a strip's upper edge
const TICKS = [10, 100, 1000]; // where it has lines; style.css has their labels
const BEHIND = 30; // events, of a client that reads: too many to be on their way
const HIGH = 44; // of a strip, in its own units
const CAP = 1.5; // of a bar: its upper edge
const STATES = ["live", "late", "stalled", "evicted", "trial", "caught-up", "connecting"];
const CARRIERS = { ws: "WebSocket", websocket: "WebSocket", sse: "SSE", poll: "Long-poll" };
const OWN = "This page";

const $ = (id) => document.getElementById(id);
const client = connect("realtime");
const inspector = connect("inspect/realtime");
const rows = new Map(); // by name: what shows a client
const counted = new Map(); // by name: how far behind the server counts it
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
  const lag = own.last ? Math.max(0, snapshot.published - own.last) : 0;
  const here = lag > snapshot.maxLag ? "late" : "live";
  return {
    ...own,
    name: OWN,
    carrier: transport ?? own.carrier,
    state: out ? "evicted" : name === "online" ? here : "connecting",
    reads: true,
    back: out ? Math.max(0, retryAt - Date.now()) : -1,
    lag,
    toGo: 0,
  };
}

// A client's row

function newRow(name) {
  const item = $("client").content.firstElementChild.cloneNode(true);
  const [turn, remove] = item.querySelectorAll("button");
  const strip = item.querySelector(".strip");
  const path = (kind, d = "") => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", kind);
    path.setAttribute("d", d);
    strip.append(path);
    return path;
  };
  for (const lag of TICKS) path("tick", across(lag));
  const paths = STATES.map((state) => ({ bars: path(`${state} bars`), caps: path(`${state} caps`) }));
  const limit = path("limit");
  item.dataset.name = name;
  item.querySelector(".who b").textContent = name;
  turn.addEventListener("click", () => order(row.view.reads ? "stall" : "read", { client: name }));
  remove.addEventListener("click", () => order("remove", { client: name }));
  item.querySelector("div.buttons").hidden = name === OWN;
  $("clients").append(item);
  const row = { item, turn, strip, paths, limit, past: [], view: undefined };
  return row;
}

const inFull = (n) => n.toLocaleString("en");

/** What a state is called, and what there is to say about it. */
export function inWords({ state, reads, back, lag, toGo, name }) {
  const seconds = Math.ceil(back / 1000);
  switch (state) {
    case "live": return ["Live", lag > BEHIND ? `${inFull(lag)} behind` : "keeps up"];
    case "late": return ["Over the limit", inServersWords(name) ?? `${inFull(lag)} behind`];
    case "stalled": return ["Stalled", "reads nothing"];
    case "trial": return ["On trial", `still ${inFull(lag)} behind` + trialInWords(name, toGo)];
    case "caught-up": return ["Caught up", "the trial is passed"];
    case "connecting": return ["Connecting", ""];
  }
  if (back > 0) return [`Evicted: back in ${seconds} s`, reads ? "is kept out, and waits" : "can't know: it reads nothing"];
  if (reads) return ["Evicted", "comes back"];
  return ["Evicted", "may come back; reads nothing"];
}

/** For how long one is over the limit by the server's count, if so; that ends with a write. */
function overInWords({ over = 0, window: most } = {}) {
  if (!most) return "";
  return over < most ? `${Math.floor(over / 1e9)} s of ${most / 1e9}` : "out after this write";
}

/** What the server says of one that is over the limit, which it may not be yet by its count. */
function inServersWords(name) {
  const is = counted.get(name);
  const over = overInWords(is);
  return is && (over ? `by the server: ${over}` : `the server counts ${inFull(is.lag)}`);
}

function trialInWords(name, toGo) {
  if (toGo) return `, ${inFull(toGo)} to go`;
  const over = overInWords(counted.get(name));
  return over && `, ${over}`;
}

function takeCounts({ data }) {
  counted.clear();
  for (const line of data.lines) counted.set(line.subject, line);
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
  for (const name of ["last", "lag"]) put(item.querySelector(`.${name}`), view.last ? inFull(view[name]) : "–");
  put(item.querySelector(".evicted"), view.evictions ? `${view.evictions}×` : "–");
  putMissing(item.querySelector(".missing"), view);
  put(turn, view.reads ? "Stall" : "Let it read");
}

function putMissing(element, { missing, repeated, leftOut }) {
  let words = inFull(missing);
  if (repeated) words += `, ${repeated} twice`;
  if (leftOut) words += ` (${leftOut} told)`;
  put(element, words);
  element.classList.toggle("wrong", missing + repeated > 0);
}

/** How high a lag is in a strip, whose scale is logarithmic. */
const height = (lag) => (HIGH * Math.log(1 + Math.min(lag, TOP))) / Math.log(1 + TOP);
const across = (lag) => `M0 ${(HIGH - height(lag)).toFixed(1)}h${SHOWN}`;

/** Bars of a path for each state, and their upper edges; where a client is out they are thin. */
function draw({ strip, paths, limit, past }) {
  const bars = STATES.map(() => "");
  const caps = STATES.map(() => "");
  past.forEach(({ state, lag }, i) => {
    const high = Math.max(CAP, height(lag));
    const wide = state === "evicted" ? 0.6 : 1.04;
    const from = `M${SHOWN - past.length + i} ${(HIGH - high).toFixed(1)}h${wide}`;
    bars[STATES.indexOf(state)] += `${from}V${HIGH}h${-wide}z`;
    caps[STATES.indexOf(state)] += `${from}v${CAP}h${-wide}z`;
  });
  paths.forEach((path, i) => {
    path.bars.setAttribute("d", bars[i]);
    path.caps.setAttribute("d", caps[i]);
  });
  limit.setAttribute("d", across(snapshot.maxLag));
  strip.setAttribute("aria-label", `The last minute: at most ${inFull(Math.max(...past.map(({ lag }) => lag)))} behind`);
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
  put($("published"), inFull(snapshot.published));
  put($("evictions"), inFull(sum("evictions")));
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

inspector.channel("snapshot", { after: "last=1" }).subscribe(takeCounts);
client.channel("ticks").subscribe(count);
client.channel("status", { after: `last=${SHOWN}` }).subscribe(take);
document.querySelectorAll("[name=rate]").forEach((radio) => radio.addEventListener("change", () => order("rate", { rate: Number(radio.value) })));
$("stall").addEventListener("click", () => order("stall"));
$("read").addEventListener("click", () => order("read"));
$("modem").addEventListener("click", () => order("modem"));
for (const carrier of ["ws", "sse"]) $(carrier).addEventListener("click", () => order("client", { carrier }));
