// Drives Chromium for the Go tests: JSON lines come in on stdin, and each is
// answered on stdout under its id. Pages are spoken to in the DevTools
// protocol, because Playwright's own evaluate loses a page that comes back from
// the back/forward cache. When stdin ends, so does the browser.
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const port = await new Promise((resolve) => {
  const probe = createServer().listen(0, "127.0.0.1", () => {
    const { port } = probe.address();
    probe.close(() => resolve(port));
  });
});
const browser = await chromium.launch({
  executablePath: process.argv[2],
  headless: true,
  ignoreDefaultArgs: ["--disable-back-forward-cache"],
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    `--remote-debugging-port=${port}`,
    "--host-resolver-rules=MAP app.test 127.0.0.1", // a name that isn't localhost, without DNS
  ],
});
browser.on("disconnected", () => process.exit(1));

const pages = new Map(); // by name: how to close it, and its DevTools session
const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");

let plain; // a second connection to the browser

async function arrive(name, url, whole, page) {
  page.on("console", (m) => say({ page: name, log: `${m.type()}: ${m.text()}` }));
  page.on("pageerror", (e) => say({ page: name, log: `uncaught: ${e.message}` }));
  pages.set(name, { whole, session: await page.context().newCDPSession(page) });
  await page.goto(url);
}

const verbs = {
  /** Opens a page in a context of its own: no storage or cache is shared. */
  async open({ page: name, url }) {
    const context = await browser.newContext();
    await arrive(name, url, context, await context.newPage());
  },
  /** Opens a page that can be hidden and frozen; Playwright's own always have the focus. They share storage. */
  async openPlain({ page: name, url }) {
    plain ??= await chromium.connectOverCDP(`http://127.0.0.1:${port}`, { noDefaults: true });
    const page = await plain.contexts()[0].newPage();
    await arrive(name, url, page, page);
  },
  /** Sends a command of the DevTools protocol. */
  cdp: ({ page, method, params }) => pages.get(page).session.send(method, params),
  /** Kills the process of a page. The command itself is never answered. */
  async crash({ page: name }) {
    const { whole, session } = pages.get(name);
    const crashed = new Promise((resolve) => whole.pages()[0].once("crash", resolve));
    session.send("Page.crash").catch(() => {});
    await crashed;
  },
  async close({ page }) {
    await pages.get(page).whole.close();
    pages.delete(page);
  },
};

createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const request = JSON.parse(line);
    try {
      say({ id: request.id, value: (await verbs[request.verb](request)) ?? null });
    } catch (error) {
      say({ id: request.id, error: String(error.message) });
    }
  })
  .on("close", async () => {
    browser.removeAllListeners("disconnected");
    await plain?.close();
    await browser.close();
    process.exit(0);
  });

say({ id: 0, value: browser.version() });
