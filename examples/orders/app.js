import { connect } from "./realtime/client.js";
import { call } from "./realtime/call.js";

const $ = (selector) => document.querySelector(selector);
const client = connect("realtime");
const orders = new Map();
const pending = new Map(); // by an order's id: what is being done with it
const next = { placed: ["pay", "cancel"], paid: ["ship"], shipped: [], cancelled: [] };
const doing = { pay: "being paid…", ship: "being shipped…", cancel: "being cancelled…" };
let seen = 0; // events that the table is made of
let table = new AbortController(); // aborting it fetches the table anew

client.onState((state) => {
  const words = { waiting: "The server is away: trying again…", failed: `Refused: ${state.error?.message}`, closed: "Closed" };
  $("#state").textContent = state.name === "online" ? `Live · ${state.transport}` : (words[state.name] ?? "Connecting…");
  $("#state").className = state.name;
});

/** Shows what went wrong, or no longer does. */
function tell(selector, text = "") {
  $(selector).textContent = text;
  $(selector).hidden = !text;
}

/** Says a command, again and again under one key, until it is answered: it is obeyed once. */
async function command(name, data) {
  tell("#refused");
  try {
    return await call(client, name, data, { repeatable: true, timeout: 20_000 });
  } catch (error) {
    const unsure = error.code === "unknown" || error.class === "later";
    tell("#refused", unsure ? `Given up, though it may have been done: look before you try again. (${error.message})` : error.message);
  }
}

$("#place").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = $("#place button");
  if (button.ariaDisabled === "true") return; // one is under way: a second would be another order
  const { item, quantity } = Object.fromEntries(new FormData(event.target));
  const order = Array.from(crypto.getRandomValues(new Uint8Array(4)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  button.ariaDisabled = "true";
  tell("#placing", `${item} × ${quantity}: being placed…`);
  await command("place", { order, item, quantity: Number(quantity) });
  tell("#placing");
  button.ariaDisabled = "false";
});

async function step(name, order) {
  pending.set(order, doing[name]);
  show();
  await command(name, { order });
  pending.delete(order);
  show();
}

$("#rebuild").addEventListener("click", async () => {
  $("#rebuilt").textContent = "Being made again…";
  const made = await command("rebuild", null);
  $("#rebuilt").textContent = made ? `Made again of ${made.events} events in ${made.ms} ms.` : "";
  table.abort();
});

/** Fetches the table as the server has it, and what happened last, and returns the position that both are of. */
async function begin(signal) {
  const answer = await fetch("orders", { signal });
  if (!answer.ok) throw new Error(`HTTP status ${answer.status}`);
  const { position, orders: all, events } = await answer.json();
  const past = [];
  for await (const event of client.channel("orders").history({ until: position, backwards: true, limit: 20, signal })) past.push(happened(event));
  orders.clear();
  for (const order of all) orders.set(order.id, order);
  seen = events;
  $("#past").replaceChildren(...past);
  show();
  return position;
}

/** What an event does to an order, as far as it is shown: the same as apply in order.go. */
function apply({ type, data }) {
  const order = orders.get(data.order) ?? { id: data.order, item: data.item, quantity: data.quantity };
  order.status = type;
  orders.set(order.id, order);
}

function happened({ type, data }) {
  return element("li", `${data.order} was ${type}`);
}

function show() {
  $("#events").textContent = seen;
  $("#empty").hidden = orders.size > 0;
  $("#orders").replaceChildren(...[...orders.values()].reverse().map(row));
}

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

/** What happened to one order, from the log: the events of its key. */
async function recall(id) {
  const past = [];
  tell("#one-failed");
  try {
    for await (const { type, time } of client.channel("orders").history({ filter: { keys: [id] } })) {
      past.push(element("li", `${time.toLocaleString()}: ${type}`));
    }
  } catch (error) {
    tell("#one-failed", `What happened can't be fetched now: ${error.message}`);
  }
  $("#one-title").textContent = `Order ${id}`;
  $("#one-past").replaceChildren(...past);
  $("#one").showModal();
}

function row({ id, item, quantity, status }) {
  const steps = next[status].map((name) => {
    const button = element("button", name[0].toUpperCase() + name.slice(1));
    button.addEventListener("click", () => step(name, id));
    return button;
  });
  const name = element("button", id, "link");
  name.addEventListener("click", () => recall(id));
  const cells = [element("td", ""), element("td", item), element("td", `${quantity}`, "number"), element("td", status, `status ${status}`), element("td", "")];
  cells[0].append(name);
  cells[4].append(...(pending.has(id) ? [pending.get(id)] : steps));
  const made = document.createElement("tr");
  made.dataset.order = id;
  made.append(...cells);
  return made;
}

/** Follows the events after the table's position: none is missing, none comes twice. One table at a time: when it ends, the next is fetched. */
async function follow() {
  for (;;) {
    const { signal } = (table = new AbortController());
    try {
      const position = await begin(signal);
      tell("#trouble");
      for await (const event of client.channel("orders", { after: position }).events({ signal })) {
        if (event.gap) break; // the log is another: the table is, too
        apply(event);
        seen++;
        show();
        $("#past").prepend(happened(event));
        while ($("#past").children.length > 20) $("#past").lastChild.remove();
      }
    } catch (error) {
      if (signal.aborted) continue;
      tell("#trouble", `The orders can't be fetched: ${error.message}. Trying again…`);
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
}

follow();
