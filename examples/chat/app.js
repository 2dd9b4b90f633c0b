// The page of the chat. Whatever crosses the wire goes through the client; here
// is only what a person sees of it.
import { call } from "./realtime/call.js";
import { connect } from "./realtime/client.js";
import { presence } from "./realtime/presence.js";

const ROOMS = ["lobby", "kitchen", "workshop"];
const MOST_SHOWN = 500; // messages a room keeps on the page
const MOST_COUNTED = 1000; // threads a room remembers the numbers of
const SAME_BREATH = 5 * 60_000; // messages this close stand under one head
const NAMES = { websocket: "WebSocket", sse: "SSE", poll: "long-poll" };

// A transport that failed is tried again after seconds instead of minutes, so
// that the way back up can be watched.
const client = connect("./realtime", { timing: { soon: 1000, upward: [3000, 5000, 10_000] } });

const $ = (id) => document.getElementById(id);
const me = remembered("sessionStorage", "throughline chat author", random); // a tab is an author
const rooms = new Map();
const sums = { lost: 0, repeated: 0 };
let current;
let here; // who is in the current room
let carrier; // the transport that was online last

// Who

function random() {
  return Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function friendlyName() {
  const pick = (list) => list[Math.floor(Math.random() * list.length)];
  return `${pick(["Bright", "Calm", "Curious", "Gentle", "Merry", "Quick"])} ${pick(["Badger", "Finch", "Heron", "Otter", "Robin", "Wren"])}`;
}

/** What a storage holds, or what is made now. One that is blocked throws, even when it is only named. */
function remembered(storage, key, make) {
  try {
    if (!window[storage].getItem(key)) window[storage].setItem(key, make());
    return window[storage].getItem(key);
  } catch {
    return make();
  }
}

function rename() {
  try {
    localStorage.setItem("throughline chat name", $("name").value.trim());
  } catch {
    // it is good for this visit, then
  }
  sayName();
  call(client, "rename").catch(() => {}); // it shows at the next connection, then
}

/** The server learns the name from this when the client connects. */
function sayName() {
  document.cookie = `chat-name=${encodeURIComponent($("name").value.trim()).slice(0, 200)}; SameSite=Strict; Path=/`;
}

/** Who is in the current room. */
function lookAround() {
  here?.close();
  here = presence(client, `room:${current.name}`);
  here.onChange(showPeople);
  showPeople();
}

function showPeople() {
  const names = here.members.map(({ info }) => text(info?.name) ?? "Somebody").sort((a, b) => a.localeCompare(b));
  const counts = new Map();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  const list = [...counts].map(([name, n]) => (n > 1 ? `${name} ×${n}` : name));
  const shown = list.slice(0, 12);
  if (list.length > shown.length) shown.push(`${list.length - shown.length} more`);
  put($("here-total"), String(here.total));
  put($("here-names"), shown.join(", "));
  $("here").hidden = here.total === 0;
}

// Rooms

/** One room. A room that was entered stays open until the page goes: its counts and its news go on. */
function openRoom(name) {
  const view = $("room").content.firstElementChild.cloneNode(true);
  const link = document.createElement("a");
  const [title, unread] = [document.createElement("span"), document.createElement("span")];
  title.className = "title";
  title.textContent = name;
  unread.className = "unread";
  unread.hidden = true;
  link.href = "#" + encodeURIComponent(name);
  link.append(title, unread);
  $("rooms").append(link);
  view.querySelector("code").textContent = curlLine(name);
  view.setAttribute("aria-label", `Room ${name}`);
  const list = view.querySelector(".messages");
  const scroll = view.querySelector(".scroll");
  scroll.setAttribute("aria-label", `Messages in ${name}`);
  const room = {
    name, view, link, unread, list, scroll,
    outbox: view.querySelector(".outbox"),
    channel: client.channel(`room:${name}`, { after: "last=50" }),
    thread: random(), // what this page says here, numbered from 1
    said: 0,
    turn: Promise.resolve(),
    waiting: new Map(), // by number: what was said and has not come back
    counts: new Map(), // by thread: the last number, and whether a gap excuses the next jump
    joined: false,
    error: undefined,
    follows: true, // whoever reads at the end stays there
  };
  scroll.addEventListener("scroll", () => {
    room.follows = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 60;
    if (room.follows) $("newer").hidden = true;
  }, { passive: true });
  new ResizeObserver(() => room.follows && toEnd(room)).observe(scroll); // a keyboard came up, a warning appeared
  return room;
}

function join(room) {
  if (room.joined) return;
  room.joined = true;
  room.error = undefined;
  room.gaps ??= room.channel.onGap((gap) => showGap(room, gap)); // before the first use, so that none is missed
  room.channel.subscribe((event) => receive(room, event), {
    onError: (error) => {
      room.joined = false;
      room.error = error;
      showStatus();
    },
  });
}

function enter() {
  const name = roomOf(location.hash);
  if (!rooms.has(name)) rooms.set(name, openRoom(name));
  current?.view.remove();
  current?.link.removeAttribute("aria-current");
  current = rooms.get(name);
  current.link.setAttribute("aria-current", "page");
  current.unread.hidden = true;
  current.unread.textContent = "";
  $("view").append(current.view);
  $("text").placeholder = `Say something in ${name}`;
  document.title = `${name} · Throughline chat`;
  join(current);
  lookAround();
  toEnd(current);
  showStatus();
}

function roomOf(hash) {
  try {
    return decodeURIComponent(hash.slice(1)) || ROOMS[0];
  } catch {
    return hash.slice(1); // a stray percent sign
  }
}

/** A line for a terminal; a quote in the name must not end the quoting there. */
function curlLine(name) {
  const channel = encodeURIComponent(`room:${name}`).replaceAll("%3A", ":").replaceAll("'", "%27");
  return `curl -d 'Hello from a terminal' '${new URL("realtime/publish", document.baseURI)}?channel=${channel}'`;
}

// Receiving

function receive(room, event) {
  const message = read(event);
  count(room, message);
  if (message.thread === room.thread) cameBack(room, message.n);
  add(room, show(message), message);
  if (room !== current) {
    room.unread.textContent = Number(room.unread.textContent) + 1;
    room.unread.hidden = false;
  }
  showStatus();
}

/** A message of this page came back, and those before it won't any more. */
function cameBack(room, n) {
  keepSent(room, n - 1);
  room.waiting.get(n)?.remove();
  for (const number of room.waiting.keys()) if (number <= n) room.waiting.delete(number);
}

/** What was sent and fell into a gap is kept in the list, as what it is. */
function keepSent(room, upTo) {
  for (const [n, item] of room.waiting) if (n <= upTo && item.parentElement === room.outbox) add(room, item);
}

/** Anybody may publish anything in a room, with curl for example. Whatever it is, it is shown. */
function read({ data }) {
  if (data instanceof Uint8Array) return { text: `${data.length} bytes that are no text` };
  if (typeof data === "string") return { text: data };
  if (typeof data?.text !== "string") return { text: JSON.stringify(data) };
  return {
    text: data.text,
    name: text(data.name)?.slice(0, 40),
    author: text(data.author),
    thread: text(data.thread),
    n: Number.isSafeInteger(data.n) ? data.n : undefined,
    at: Number.isFinite(new Date(data.at).getTime()) ? data.at : undefined,
  };
}

function text(value) {
  return typeof value === "string" && value.trim() ? value.trim() : undefined;
}

/**
 * The page's own proof: authors number their messages, and from the first one
 * seen on none may be missing and none may come twice. What the client told of
 * as a gap is not lost silently.
 */
function count(room, { thread, n }) {
  if (!thread || n === undefined) return;
  const before = room.counts.get(thread);
  if (before && n <= before.n) sums.repeated++;
  else if (before && !before.excused) sums.lost += n - before.n - 1;
  if (before && n <= before.n) return;
  room.counts.set(thread, { n, excused: false });
  if (room.counts.size > MOST_COUNTED) room.counts.delete(room.counts.keys().next().value);
}

const GAPS = {
  trimmed: "Messages before this are no longer kept",
  rewritten: "The server lost its history: messages may be missing here",
  skipped: "Some messages were left out here",
  withheld: "What was said before this is not for you to read",
  unencodable: "One message here can't be shown",
};

function showGap(room, { reason }) {
  for (const one of room.counts.values()) one.excused = true;
  keepSent(room, room.said);
  add(room, note(GAPS[reason] ?? `Some messages are missing here (${reason})`, "gap"));
  showStatus();
}

// Saying

/**
 * One after the other: only what was accepted uses up a number, so that
 * a message that is refused leaves no hole for others to count as lost.
 */
function say(room, words) {
  const message = { text: words, name: text($("name").value) ?? "Somebody", author: me, at: Date.now() };
  const item = show(message);
  tell(item, "pending", "Sending…");
  room.outbox.append(item);
  room.turn = room.turn.then(() => send(room, message, item));
  refreshEmpty(room);
  toEnd(room);
}

async function send(room, message, item) {
  const n = room.said + 1;
  room.waiting.set(n, item);
  try {
    await room.channel.publish({ ...message, thread: room.thread, n }, { type: "said" });
    room.said = n;
    if (room.waiting.has(n)) tell(item, "sent", "Sent");
  } catch (error) {
    room.waiting.delete(n);
    // It may have been appended after all. Then its number is used up, and a new thread is the honest way to go on.
    if (error.code === "unknown") Object.assign(room, { thread: random(), said: 0 });
    tell(item, "refused", `Not sent: ${inWords(error)}`, () => {
      item.remove();
      say(room, message.text);
    });
    if (room.follows) toEnd(room);
  }
}

/** What became of a message; `again` if it can be tried again. */
function tell(item, fate, words, again) {
  item.classList.remove("pending", "sent", "refused");
  item.classList.add(fate);
  const line = item.querySelector(".fate");
  const button = line.querySelector("button");
  line.hidden = false;
  line.querySelector("span").textContent = words;
  button.hidden = !again;
  button.onclick = again;
}

/** Somebody to listen to while transports come and go. */
function countAloud() {
  let number = 0;
  let timer;
  return (on) => {
    clearInterval(timer);
    if (on) timer = setInterval(() => current.outbox.children.length < 20 && say(current, `Counting: ${++number}`), 333);
  };
}

// The list

function show(message) {
  const item = $("message").content.firstElementChild.cloneNode(true);
  const name = message.name ?? "Somebody";
  const at = new Date(message.at ?? Date.now());
  const time = item.querySelector("time");
  item.classList.toggle("own", message.author === me);
  item.querySelector("b").textContent = message.author === me ? "You" : name;
  item.querySelector(".face").textContent = initials(name);
  item.querySelector(".face").style.setProperty("--hue", hue(message.author ?? name));
  item.querySelector(".text").textContent = message.text;
  time.dateTime = at.toISOString();
  time.textContent = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  time.title = message.at === undefined ? `Arrived ${at.toLocaleString()}` : at.toLocaleString();
  return item;
}

function note(words, kind = "") {
  const item = document.createElement("li");
  item.className = `note ${kind}`;
  item.textContent = words;
  return item;
}

/** Puts an item at the end. Whoever reads further up is not moved, but told. */
function add(room, item, message) {
  const before = room.last;
  const same = message && before && message.author && message.author === before.author && message.name === before.name;
  item.classList.toggle("more", Boolean(same && message.at - before.at < SAME_BREATH));
  room.last = message;
  room.list.append(item);
  if (room.list.children.length > MOST_SHOWN) {
    room.list.firstElementChild.remove();
    room.view.querySelector(".cut").hidden = false;
  }
  refreshEmpty(room);
  if (room !== current) return;
  if (room.follows) toEnd(room);
  else $("newer").hidden = false;
}

/** That a room is empty is said once the server has shown where it begins. */
function refreshEmpty(room) {
  const silent = room.list.children.length + room.outbox.children.length === 0;
  room.view.querySelector(".empty").hidden = !silent || Boolean(room.error) || room.channel.position === undefined;
}

function toEnd(room) {
  room.follows = true;
  room.scroll.scrollTop = room.scroll.scrollHeight;
  $("newer").hidden = true;
}

function initials(name) {
  const [first, second = ""] = name.trim().split(/\s+/);
  return ([...first][0] + ([...second][0] ?? "")).toUpperCase();
}

function hue(author) {
  let sum = 7;
  for (const char of author) sum = (sum * 31 + char.codePointAt(0)) % 3600;
  return String(sum % 360);
}

// The state

const CODES = {
  aborted: "it was given up",
  bad_channel: "this can't be the name of a room",
  busy: "the server has too much to do just now",
  forbidden: "the server does not allow this",
  foreign_origin: "the server does not know this page",
  network: "the connection broke",
  no_transport: "no transport is allowed",
  slow_consumer: "this page fell behind, and the server asked it to wait",
  shutdown: "the server is going away",
  too_large: "it is too long",
  unauthorized: "the server does not know you",
  unavailable: "the server can't do it just now",
  unknown: "no answer came in time, so it may have arrived or not",
};

const inWords = (error) => CODES[error.code] ?? error.message;

function showStatus() {
  const state = client.state;
  document.body.dataset.state = state.name;
  const [words, detail] = stateInWords(state);
  put($("state"), words);
  put($("spoken"), state.name === "online" ? `${words} over ${NAMES[state.transport]}` : words); // without the seconds
  put($("detail"), detail);
  put($("position"), current.channel.position ?? "–");
  for (const sum in sums) put($(sum), String(sums[sum]));
  $("lost").parentElement.classList.toggle("wrong", sums.lost + sums.repeated > 0);
  refreshEmpty(current);
  showTrouble(state);
}

function stateInWords(state) {
  switch (state.name) {
    case "online":
      return ["Online", `· ${NAMES[state.transport]}`];
    case "waiting":
      return ["Offline", state.retryAt === Infinity ? "" : `· again in ${Math.max(0, Math.ceil((state.retryAt - Date.now()) / 1000))} s`];
    case "failed":
      return ["Refused", ""];
    case "closed":
      return ["Closed", ""];
  }
  return ["Connecting…", ""];
}

function showTrouble(state) {
  let words = "";
  if (state.name === "waiting" && state.reason.code === "no_transport") words = "No transport is allowed. Switch one on to go on.";
  else if (state.name === "waiting") words = `Not connected: ${inWords(state.reason)}. Messages come as soon as it works again.`;
  else if (state.name === "failed") words = `The server refused the connection: ${inWords(state.error)}.`;
  else if (current.error) words = `This room is closed to you: ${inWords(current.error)}.`;
  put($("trouble").firstElementChild, words);
  $("trouble").hidden = !words;
  $("again").hidden = state.name !== "failed" && !current.error;
}

/** Text that stays the same is not written again: it would be read out again. */
function put(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

client.onState((state) => {
  if (state.name === "online") {
    if (carrier && carrier !== state.transport) add(current, note(`now over ${NAMES[state.transport]}`));
    carrier = state.transport;
  }
  showStatus();
});

// The page

function allow() {
  client.transports = [...document.querySelectorAll("[name=transport]:checked")].map((box) => box.value);
}

function begin() {
  $("name").value = remembered("localStorage", "throughline chat name", friendlyName);
  sayName();
  $("connection").open = matchMedia("(min-width: 60rem)").matches;
  $("name").addEventListener("change", rename);
  document.querySelectorAll("[name=transport]").forEach((box) => box.addEventListener("change", allow));
  const counting = countAloud();
  $("talk").addEventListener("change", () => counting($("talk").checked));
  $("newer").addEventListener("click", () => toEnd(current));
  $("again").addEventListener("click", () => {
    client.connect();
    rooms.forEach((room) => room.error && join(room));
  });
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    const words = $("text").value.trim();
    if (words) say(current, words);
    $("text").value = "";
  });
  for (const name of ROOMS) rooms.set(name, openRoom(name));
  addEventListener("hashchange", enter);
  allow(); // browsers may bring the switches back as they were
  enter();
  setInterval(showStatus, 1000); // the seconds to the next attempt
}

begin();
