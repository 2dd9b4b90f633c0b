// The inspector's page: shows the snapshots and pulses that its server publishes
// each second (server/inspector.go). What clients chose is only ever set as text.
import { connect } from "./realtime/client.js";

const second = 1000;
const window_ = 120 * second; // what the plot shows
const quiet = 3.5 * second; // without a snapshot for so long the server counts as gone
const $ = (id) => document.getElementById(id);

// Words and numbers.

const count = new Intl.NumberFormat("en");
/** Numbers stay in a line with their units. */
const unit = (n, name) => `${n}\u00a0${name}`;
const some = (n, one, many = one + "s") => unit(count.format(n), n === 1 ? one : many);
const list = (...parts) => parts.filter(Boolean).join(" · ");

/** A length of time in nanoseconds, to about a hundredth. */
export function duration(ns) {
  const s = Math.max(0, Math.round(ns / 1e9));
  if (s < 100) return unit(s, "s");
  if (s < 600) return inTwo(s, 60, "min", "s");
  const minutes = Math.round(s / 60);
  if (minutes < 100) return unit(minutes, "min");
  if (minutes < 600) return inTwo(minutes, 60, "h", "min");
  const hours = Math.round(s / 3600);
  return hours < 100 ? unit(hours, "h") : unit(Math.round(hours / 24), "d");
}

function inTwo(n, by, large, small) {
  const whole = unit(Math.floor(n / by), large);
  return n % by ? unit(whole, unit(n % by, small)) : whole;
}

function bytes(n) {
  if (n < 1000) return unit(n, "B");
  const units = ["kB", "MB", "GB", "TB"];
  let i = -1;
  do {
    n /= 1000;
    i++;
  } while (n >= 999.5 && i < units.length - 1);
  return unit(n < 9.95 ? n.toFixed(1) : Math.round(n), units[i]);
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Tables. Rows are kept and only what changed is set, so that text stays selected.

/** What a client is called. */
const who = (r) => r.subject || r.address || "unnamed";
const whoElse = (r) => r.namespace && `in ${r.namespace}`;
/** What tells a client from others that are called the same. */
const session = (r) => r.session || r.connection || "plain";
const plain = (r) => !r.session && r.connection && "plain";
const isOver = (r) => r.maxLag && r.lag > r.maxLag;
const evicted = (r) => (r.evicted ? `${unit(r.evicted, "×")}: ${r.why}` : "");
const keptOf = (r) => (r.broken ? r.broken.join(", ") : "everything");
const reason = (r) => (r.broken ? `its connections over ${r.broken.join(", ")} broke` : r.why || "too slow");
const standing = (r) => (r.trial ? "on trial" : r.window ? "over the limit" : "closed");
const overFor = (r) => r.window && list(r.trial && "over the limit", `${duration(r.over ?? 0)} of ${duration(r.window)}`);
const limitOf = (r) => (r.maxLag ? count.format(r.maxLag) : "none");
const skips = (r) => r.skips && "then skips";
const kept = (r) => (r.held ? bytes(r.held.bytes) : "?");

/** Columns: a class, and the spans of a cell by their classes. */
const tables = {
  lines: {
    row: (r) => (r.trial ? "trial" : r.window ? "over" : ""),
    columns: [
      ["", [["inline", who], ["inline code soft narrow", session], ["sub", whoElse], ["sub narrow", (r) => list(r.transport, plain(r), some(r.channels, "channel"), duration(r.for))], ["sub narrow", evicted]]],
      ["wide", [["code", session], ["sub", plain]]],
      ["wide", [["", (r) => r.transport]]],
      ["wide number", [["", (r) => duration(r.for)]]],
      ["wide number", [["", (r) => count.format(r.channels)]]],
      ["wide number", [["", (r) => (r.written ? `${duration(r.written)} ago` : "not yet")]]],
      ["number", [["", (r) => count.format(r.lag)], ["sub", (r) => isOver(r) && `limit ${limitOf(r)}`], ["bar", (r, { greatestLag }) => (r.lag ? r.lag / greatestLag : 0)]]],
      ["", [["state", standing], ["sub", overFor]]],
      ["wide", [["soft", (r) => evicted(r) || "–"]]],
    ],
  },
  absent: {
    row: () => "open",
    columns: [
      ["", [["inline", who], ["inline code soft narrow", session], ["sub", whoElse], ["sub narrow", (r) => list(r.times > 1 && `${unit(r.times, "×")} in a row`, reason(r))]]],
      ["wide", [["code", session], ["sub", plain]]],
      ["", [["state", keptOf]]],
      ["number", [["", (r) => duration(r.after)]]],
      ["wide number", [["", (r) => count.format(r.times)]]],
      ["wide", [["soft", reason]]],
    ],
  },
  channels: {
    row: () => "",
    columns: [
      ["", [["", (r) => r.name], ["sub", (r) => r.namespace && `in ${r.namespace}`], ["sub narrow", (r) => list(`limit ${limitOf(r)}`, skips(r), `head ${count.format(r.head)}`, r.held && some(r.held.events, "event"))]]],
      ["number", [["", (r) => count.format(r.subscribers)]]],
      ["wide number", [["", limitOf], ["sub", skips]]],
      ["wide number", [["", (r) => count.format(r.head)]]],
      ["wide number", [["", (r) => (r.held ? count.format(r.held.events) : "?")]]],
      ["number", [["", kept]]],
    ],
  },
};

function addRow(body, columns) {
  const row = body.insertRow();
  for (const [kind, spans] of columns) {
    const cell = row.insertCell();
    cell.className = kind;
    for (const [name] of spans) cell.append(Object.assign(document.createElement("span"), { className: name }));
  }
  return row;
}

function showTable(id, rows, snapshot) {
  const { row: kind, columns } = tables[id];
  const table = $(id);
  const body = table.tBodies[0];
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((r, i) => {
    const row = body.rows[i] ?? addRow(body, columns);
    row.className = kind(r);
    columns.forEach(([, spans], c) =>
      spans.forEach(([name, value], s) => {
        const span = row.cells[c].children[s];
        const shown = value(r, snapshot);
        span.hidden = !shown;
        if (name === "bar") span.style.width = `${100 * shown}%`;
        else set(span, shown || "");
      }),
    );
  });
  table.hidden = !rows.length;
  table.nextElementSibling.hidden = !!rows.length;
}

// What fails.

const parts = { log: "The log", store: "The session store" };
const breakers = { open: ", and is not asked for now: its breaker is open", "half-open": ", and is tried again: its breaker is half-open" };
const stages = {
  trimming: "The log gives up its oldest events.",
  refusing: "The log gives up its oldest events, and new clients are refused.",
  evicting: "The log gives up its oldest events, new clients are refused, and who lags most is evicted.",
};

const failing = (kind) => ([name, f]) =>
  name === "server"
    ? { kind, what: "Going away", more: "This server takes no more clients." }
    : { kind, what: `${parts[name] ?? name} fails`, more: `for ${duration(f.for * 1e9)}${breakers[f.breaker] ?? ""}.` };

/** What there is to say: how bad it is, what it is, and more about it. */
export function troubles({ health, memory }) {
  const all = [...Object.entries(health.failing ?? {}).map(failing("bad")), ...Object.entries(health.degraded ?? {}).map(failing("warn"))];
  if (memory) {
    const used = `${unit(Math.round((100 * memory.used) / memory.limit), "%")} of ${bytes(memory.limit)} are used.`;
    all.push({ kind: memory.stage === "trimming" ? "warn" : "bad", what: "Memory is short", more: `${stages[memory.stage]} ${used}` });
  }
  return all;
}

let trouble = ""; // what there was to say last

function showTroubles(s) {
  const all = troubles(s);
  const box = $("trouble");
  while (box.children.length > all.length) box.lastChild.remove();
  all.forEach(({ kind, what, more }, i) => {
    if (!box.children[i]) box.append(document.createElement("li"));
    const item = box.children[i];
    if (!item.firstChild) item.append(document.createElement("b"), " ", document.createElement("span"));
    item.className = kind;
    set(item.firstChild, what);
    set(item.lastChild, more);
  });
  box.hidden = !all.length;
  const worst = all.find(({ kind }) => kind === "bad") ?? all[0];
  if (worst) document.body.dataset.trouble = worst.kind;
  else delete document.body.dataset.trouble;
  tellTrouble(all.map(({ what }) => what).join(", "));
}

/** Tells those who listen what has changed. */
function tellTrouble(now) {
  if (now === trouble) return;
  trouble = now;
  spoken = performance.now();
  set($("spoken"), `${now || "Nothing fails any more"}.`);
}

// Totals.

let spoken = -Infinity; // when they were told to those who listen

function showTotals(s) {
  const transports = Object.entries(s.connections).sort();
  const connections = transports.reduce((sum, [, n]) => sum + n, 0);
  set($("connections"), count.format(connections));
  set($("transports"), list(...transports.map(([name, n]) => `${name} ${count.format(n)}`)) || "none");
  set($("sessions"), count.format(s.sessions));
  set($("lag"), count.format(s.greatestLag));
  set($("lag-sub"), list(`median ${count.format(s.medianLag)}`, s.maxLag && `limit ${count.format(s.maxLag)}`));
  $("lag").classList.toggle("warn", s.lines.some(isOver));
  set($("away"), count.format(s.away));
  set($("trials"), `${count.format(s.trials)} on trial`);
  set($("evictions"), count.format(s.evictions));
  set($("evictions-sub"), `in ${duration(s.up)}`);
  set($("bytes"), s.log ? bytes(s.log.bytes) : "?");
  set($("bytes-sub"), s.log ? `in ${some(s.log.channels, "channel")}` : "the log does not say");
  set($("up"), `up for ${duration(s.up)}`);
  set($("lines-note"), s.lines.length < connections ? `${s.lines.length} of ${count.format(connections)}, those that lag most` : "");
  set($("absent-note"), s.absent.length < s.away ? `${s.absent.length} of ${count.format(s.away)}, the latest` : "");
  set($("channels-note"), s.channels.length < s.topics ? `${s.channels.length} of ${count.format(s.topics)}, those with the most subscribers` : "");
  if (performance.now() - spoken > 10 * second) {
    spoken = performance.now();
    set($("spoken"), `${some(connections, "connection")}, greatest lag ${some(s.greatestLag, "event")}, ${some(s.away, "client")} kept out, ${some(s.evictions, "eviction")}.`);
  }
}

// The plot.

let pulses = []; // in order of their times, by the server's clock
let limit = 0;
let pointed; // the pulse under the pointer

function draw(name, attributes, text) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  if (text !== undefined) e.textContent = text;
  return e;
}

/** The step of about so many ticks up to a number: 1, 2 or 5 times a power of ten. */
function step(most, ticks) {
  const power = 10 ** Math.floor(Math.log10(most / ticks));
  return Math.max(1, power * [1, 2, 5, 10].find((n) => n * power * ticks >= most));
}

const top_ = { y: 28, height: 148 };
const bottom = { y: 222, height: 46 };

/** One panel: its name, grid and numbers. Returns where a value is. */
function panel(svg, { y, height }, name, most, ticks, left, right) {
  const by = step(most, ticks);
  const end = by * Math.ceil(most / by);
  const at = (value) => y + height - (value / end) * height;
  svg.append(draw("text", { class: "name", x: 0, y: y - 14 }, name));
  for (let value = 0; value <= end; value += by) {
    const line = Math.round(at(value)) + 0.5;
    svg.append(
      draw("line", { class: value ? "grid" : "axis", x1: left, x2: right, y1: line, y2: line }),
      draw("text", { x: left - 8, y: line + 4, "text-anchor": "end" }, count.format(value)),
    );
  }
  return at;
}

/** Splits where nobody looked, so that nothing is drawn that was not seen. */
function stretches() {
  const all = [];
  pulses.forEach((p, i) => {
    if (!i || p.at - pulses[i - 1].at > 2.5 * second) all.push([]);
    all.at(-1).push(p);
  });
  return all;
}

function drawTimes(svg, x, y, by) {
  for (let s = 0; s <= 120; s += by) {
    const text = ["now", "30 s", "1 min", "90 s", "2 min ago"][s / 30];
    svg.append(draw("text", { x: x(s * second), y, "text-anchor": s === 0 ? "end" : s === 120 ? "start" : "middle" }, text));
  }
}

function showPlot() {
  const width = $("plot").clientWidth;
  const now = pulses.at(-1)?.at ?? 0;
  const greatest = Math.max(4, ...pulses.map((p) => p.greatest));
  const lagMost = greatest * 2 >= limit && limit ? Math.max(greatest, limit) : greatest;
  const evictedMost = Math.max(2, ...pulses.map((p) => p.evictions));
  const left = 18 + 7 * count.format(Math.max(lagMost * 2, evictedMost)).length;
  const right = width - 2;
  const x = (ago) => right - (ago / window_) * (right - left);
  const svg = draw("svg", { width, height: 296, role: "img", "aria-label": plotInWords() });
  const lagAt = panel(svg, top_, "Lag, events", lagMost, 4, left, right);
  const evictedAt = panel(svg, bottom, "Evictions per second", evictedMost, 2, left, right);
  drawTimes(svg, x, 288, width < 500 ? 60 : 30);
  for (const some of stretches()) {
    const line = (value) => "M" + some.map((p) => `${x(now - p.at).toFixed(1)} ${lagAt(p[value]).toFixed(1)}`).join("L") + (some.length === 1 ? "h.1" : "");
    const [from, to] = [x(now - some[0].at), x(now - some.at(-1).at)];
    svg.append(
      draw("path", { class: "area", d: `${line("greatest")}L${to} ${lagAt(0)}L${from} ${lagAt(0)}Z` }),
      draw("path", { class: "median", d: line("median") }),
      draw("path", { class: "greatest", d: line("greatest") }),
    );
  }
  if (lagMost >= limit && limit) {
    const y = lagAt(limit);
    svg.append(draw("line", { class: "limit", x1: left, x2: right, y1: y, y2: y }), draw("text", { class: "limit-name", x: right, y: y - 5, "text-anchor": "end" }, `limit ${count.format(limit)}`));
  }
  const bar = Math.max(3, (right - left) / 120 - 1);
  for (const p of pulses.filter((p) => p.evictions)) {
    const y = evictedAt(p.evictions);
    svg.append(draw("rect", { class: "evictions", x: Math.min(x(now - p.at) - bar / 2, right - bar), y, width: bar, height: evictedAt(0) - y, rx: 1 }));
  }
  if (pointed && now - pointed.at <= window_) {
    svg.append(draw("line", { class: "cursor", x1: x(now - pointed.at), x2: x(now - pointed.at), y1: top_.y, y2: bottom.y + bottom.height }));
  }
  $("plot").replaceChildren(svg);
  showReadout(now);
}

function plotInWords() {
  if (!pulses.length) return "No data yet.";
  const evictions = pulses.reduce((sum, p) => sum + p.evictions, 0);
  return `Greatest lag ${some(pulses.at(-1).greatest, "event")} now, at most ${count.format(Math.max(...pulses.map((p) => p.greatest)))} in the last two minutes, with ${some(evictions, "eviction")}.`;
}

function showReadout(now) {
  const p = pointed && now - pointed.at <= window_ ? pointed : undefined;
  set(
    $("readout"),
    p
      ? `${Math.round((now - p.at) / second)} s ago: greatest lag ${count.format(p.greatest)}, median ${count.format(p.median)}, ${some(p.evictions, "eviction")}`
      : pulses.length
        ? plotInWords()
        : "The plot begins when somebody looks.",
  );
}

function point(event) {
  const { left, right } = $("plot").getBoundingClientRect();
  const now = pulses.at(-1)?.at ?? 0;
  const from = left + ($("plot").querySelector(".axis")?.x1.baseVal.value ?? 0);
  const at = now - ((right - 2 - event.clientX) / (right - 2 - from)) * window_;
  const distance = (p) => Math.abs(p.at - at);
  pointed = pulses.reduce((best, p) => (!best || distance(p) < distance(best) ? p : best), undefined);
  showPlot();
}

$("plot").addEventListener("pointermove", point);
$("plot").addEventListener("pointerdown", point);
$("plot").addEventListener("pointerleave", () => {
  pointed = undefined;
  showPlot();
});
new ResizeObserver(showPlot).observe($("plot"));

// How the page itself is connected.

const names = { websocket: "WebSocket", sse: "SSE", poll: "long-poll" };
let seen; // when the last snapshot came
let refused; // why the server does not want us, if so

function showState() {
  const { name, transport } = client.state;
  const age = performance.now() - (seen ?? 0);
  let [state, text] = ["connecting", "Connecting…"];
  if (refused) [state, text] = ["refused", `Refused: ${refused.message || refused.code}. Reload to log in again.`];
  else if (seen !== undefined && age < (name === "online" ? quiet : 1.6 * second)) [state, text] = ["live", list("Live", names[transport], trouble)];
  else if (seen !== undefined) [state, text] = ["gone", `Server gone, last seen ${duration(age * 1e6)} ago`];
  document.body.dataset.state = state;
  set($("state-text"), text);
  document.title = state === "live" && !trouble ? "Inspector" : `${state === "connecting" ? "…" : "⚠"} Inspector`;
}

function showSnapshot(s) {
  [seen, refused, limit] = [performance.now(), undefined, s.maxLag];
  showTroubles(s);
  showTotals(s);
  showTable("lines", s.lines, s);
  showTable("absent", s.absent, s);
  showTable("channels", s.channels, s);
  showState();
}

function takePulse(p) {
  pulses = pulses.filter((old) => old.at < p.at && p.at - old.at <= window_);
  pulses.push(p);
  showPlot();
}

/** Follows a channel for ever. What ends it for good is shown, and tried again. */
async function follow(name, after, take) {
  for (;;) {
    const channel = client.channel(name, { after });
    channel.onGap(() => {}); // only the newest counts
    try {
      for await (const event of channel) take(event.data);
    } catch (error) {
      refused = error;
      showState();
    }
    await new Promise((resolve) => setTimeout(resolve, 5 * second));
  }
}

const client = connect("realtime", { timing: { cap: 3 * second } });
client.onState(showState);
setInterval(showState, second);
showState();
void follow("pulse", "last=120", takePulse);
void follow("snapshot", "last=1", showSnapshot);
