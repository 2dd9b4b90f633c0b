// Writes docs/chat-375.png and docs/chat-1280.png, and both by night: two people
// talk in the chat, in two browsers. With an address as argument the chat that
// runs there is shown, else one is built and started.
//
//	node examples/chat/screenshots.mjs [http://127.0.0.1:8080/]
//
// Needs npm --prefix e2e ci, and Chromium (CHROMIUM says where, if not in the
// usual place). OUT is another folder to write to.
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "../../e2e/node_modules/playwright-core/index.mjs";

const root = fileURLToPath(new URL("../../", import.meta.url));
const out = process.env.OUT ?? join(root, "docs");

// Who says what. A line without words says what the person's browser may use from now on.
const talk = [
  ["Ada", "Morning! Is the new build on the test machines yet?"],
  ["Lin", "Since ten minutes ago. I'm on the train, by the way, so the network comes and goes."],
  ["Ada", "Good, then you are our test today."],
  ["build", "Build 1423 passed: 212 tests in 48 s"],
  ["Ada", "There it is. Try it without WebSocket, as in the office with the strict proxy?"],
  ["Lin", ["sse", "poll"]],
  ["Lin", "Done. The page went over to SSE by itself, I only typed on."],
  ["Ada", "And everything arrived here, in order."],
  ["Lin", ["websocket", "sse", "poll"]],
  ["Lin", "Back on WebSocket. 0 lost, 0 repeated!"],
  ["Ada", "Then let's pull the plug on the server next."],
];
const names = { websocket: "WebSocket", sse: "SSE", poll: "Long-poll" };

/** Builds and starts the chat: its address, and what ends it. */
async function startChat() {
  const folder = mkdtempSync(join(tmpdir(), "chat-"));
  const program = join(folder, "chat");
  execFileSync("go", ["build", "-o", program, "./examples/chat"], { cwd: root, stdio: "inherit" });
  const child = spawn(program, ["-addr", "127.0.0.1:0"], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise((done) => child.on("exit", done));
  for await (const line of createInterface({ input: child.stdout })) {
    const url = /http:\S+/.exec(line)?.[0];
    if (!url) continue;
    const stop = async () => {
      child.kill("SIGTERM");
      await ended;
      rmSync(folder, { recursive: true });
    };
    return [url, stop];
  }
  throw new Error("the chat does not start");
}

async function enter(browser, url, name, width, height) {
  const context = await browser.newContext({ viewport: { width, height }, deviceScaleFactor: 2 });
  const page = await context.newPage();
  page.on("pageerror", (error) => console.error(`${name}: ${error}`));
  await page.goto(url);
  await page.getByLabel("Your name").fill(name);
  await page.locator('body[data-state="online"]').waitFor();
  return page;
}

async function say(page, words) {
  await page.getByLabel("Message", { exact: true }).fill(words);
  await page.getByRole("button", { name: "Send" }).click();
}

/** What is no person speaks with plain HTTP. */
async function publish(url, name, text) {
  const response = await fetch(new URL("realtime/publish?channel=room:lobby", url), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ name, text, at: Date.now() }),
  });
  if (!response.ok) throw new Error(await response.text());
}

/** Sets the switches, and waits until the best transport allowed carries. */
async function allow(page, transports) {
  const summary = page.locator("summary");
  await summary.click();
  for (const name in names) await page.getByRole("switch", { name: names[name] }).setChecked(transports.includes(name));
  await summary.click();
  await page.locator("#detail", { hasText: names[transports[0]] }).waitFor();
}

async function converse(url, people) {
  let said = 0;
  for (const [name, words] of talk) {
    if (Array.isArray(words)) {
      await allow(people[name], words);
      continue;
    }
    await (people[name] ? say(people[name], words) : publish(url, name, words));
    for (const page of Object.values(people)) await page.locator(".messages .message").nth(said).waitFor();
    said++;
  }
}

/** By day and by night. */
async function pictures(page, name) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  if (wide) throw new Error(`${name}: the page is wider than the screen`);
  for (const [colorScheme, file] of [["light", `${name}.png`], ["dark", `${name}-dark.png`]]) {
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: join(out, file), animations: "disabled" });
    console.log(join(out, file));
  }
}

const [url, stop] = process.argv[2] ? [process.argv[2], () => {}] : await startChat();
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu"],
});
try {
  mkdirSync(out, { recursive: true });
  const people = { Ada: await enter(browser, url, "Ada", 1280, 800), Lin: await enter(browser, url, "Lin", 375, 812) };
  await converse(url, people);
  for (const page of Object.values(people)) await page.locator("#here-names", { hasText: "Ada, Lin" }).waitFor();
  await pictures(people.Ada, "chat-1280");
  await pictures(people.Lin, "chat-375");
} finally {
  await browser.close();
  await stop();
}
