import { connect } from "./realtime/client.js";
import { call } from "./realtime/call.js";

const $ = (selector) => document.querySelector(selector);
const client = connect("realtime");
const orders = new Map();
const next = { placed: ["pay", "cancel"], paid: ["ship"], shipped: [], cancelled: [] };

client.onState(({ name, transport }) => {
  $("#state").textContent = name === "online" ? `Live · ${transport}` : name;
  $("#state").className = name;
});

/** Says a command, again and again under one key, until it is answered: it is obeyed once. */
async function command(name, data) {
  $("#refused").hidden = true;
  try {
    return await call(client, name, data, { repeatable: true, timeout: 20_000 });
  } catch (error) {
    $("#refused").textContent = error.message;
    $("#refused").hidden = false;
  }
}

$("#place").addEventListener("submit", (event) => {
  event.preventDefault();
  const { item, quantity } = Object.fromEntries(new FormData(event.target));
  const order = Array.from(crypto.getRandomValues(new Uint8Array(4)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  command("place", { order, item, quantity: Number(quantity) });
});

$("#rebuild").addEventListener("click", async () => {
  const began = performance.now();
  if (!(await command("rebuild", null))) return;
  const { events } = await begin();
  $("#rebuilt").textContent = `Made again of ${events} events in ${Math.round(performance.now() - began)} ms.`;
});

/** The table as the server has it, and the position that it is the state at. */
async function begin() {
  const table = await (await fetch("orders")).json();
  orders.clear();
  for (const order of table.orders) orders.set(order.id, order);
  show(table.events);
  return table;
}

/** What the server's projection does with an event, too. */
function apply({ type, data }) {
  const order = orders.get(data.order) ?? { id: data.order, item: data.item, quantity: data.quantity };
  order.status = type;
  orders.set(order.id, order);
}

function show(events) {
  $("#events").textContent = events;
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
  for await (const { type, time } of client.channel("orders").history({ filter: { keys: [id] } })) {
    past.push(element("li", `${time.toLocaleString()}: ${type}`));
  }
  $("#one-title").textContent = `Order ${id}`;
  $("#one-past").replaceChildren(...past);
  $("#one").showModal();
}

function row({ id, item, quantity, status }) {
  const steps = next[status].map((step) => {
    const button = element("button", step[0].toUpperCase() + step.slice(1));
    button.addEventListener("click", () => command(step, { order: id }));
    return button;
  });
  const name = element("button", id, "link");
  name.addEventListener("click", () => recall(id));
  const cells = [element("td", ""), element("td", item), element("td", `${quantity}`, "number"), element("td", status, `status ${status}`), element("td", "")];
  cells[0].append(name);
  cells[4].append(...steps);
  const made = document.createElement("tr");
  made.dataset.order = id;
  made.append(...cells);
  return made;
}

/** Follows the events after the table's position: none is missing, none comes twice. */
async function follow() {
  for (;;) {
    const { position, events } = await begin();
    let seen = events;
    for await (const event of client.channel("orders", { after: position })) {
      if (event.gap) break; // the log is another: the table is, too
      apply(event);
      show(++seen);
      $("#past").prepend(element("li", `${event.data.order} was ${event.type}`));
      while ($("#past").children.length > 20) $("#past").lastChild.remove();
    }
  }
}

follow();
