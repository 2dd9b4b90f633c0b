// Builds, measures and verifies the bundles. `node build.mjs [build|size|test|verify]`
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { minify } from "terser";

const here = import.meta.dirname ?? new URL(".", import.meta.url).pathname;
const served = join(here, "../server");
/** What the server serves: from which source, and how many bytes it may have (gzip -9). */
const bundles = {
  "client.js": { entry: "src/index.ts", budget: 8000 },
  "call.js": { entry: "src/call.ts", budget: 1500 },
  "presence.js": { entry: "src/presence.ts", budget: 1500 },
  "auth.js": { entry: "src/auth.ts", budget: 1500 },
  "history.js": { entry: "src/history.ts", budget: 1500 },
  "client.global.js": { entry: "src/global.ts" },
};
const files = Object.keys(bundles);
const { version } = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));
const common = { absWorkingDir: here, bundle: true, target: "es2021", logLevel: "warning" };

// Names that never leave a bundle: not the application's, the page's, the wire's, or those of the door between bundles (`Internal`
// in types.ts). Shortened in the served files.
const internal = `
  misses flaps flapped sentAt died demoted started trusted proved opened lapses greeted told carrier adopt awaited moment deadline renew feed last
  sinks full resting gift used wanted presented attempt wire leave take drained waiting unheard guard report changed
  here untold busy handled frame jobs part past hearers over via view fulfil refuse beat suspected sleep wake heard remember tick allow network start
`.trim().split(/\s+/);

async function bundle(folder) {
  for (const [file, { entry }] of Object.entries(bundles)) {
    const global = file === "client.global.js";
    const { outputFiles } = await build({
      ...common, external: global ? [] : ["./history.js"], entryPoints: [entry], write: false, format: global ? "iife" : "esm", globalName: global ? "Throughline" : undefined,
      mangleProps: new RegExp(`^(${internal.join("|")})$`),
    });
    // One kind of declaration packs better, and lets neighbours join.
    const { code } = await minify(outputFiles[0].text.replace(/\bconst /g, "let "), {
      ecma: 2020, module: !global, toplevel: !global, compress: { passes: 2, unsafe_arrows: true, pure_getters: true, keep_fargs: false, reduce_funcs: false, inline: 1, unsafe_methods: true, evaluate: false, conditionals: false, lhs_constants: false },
      format: { preamble: `/*! throughline ${version} | MIT */` },
    });
    writeFileSync(join(folder, file), code + "\n");
  }
}

function run(command, ...args) {
  const { status } = spawnSync(command, args, { cwd: here, stdio: "inherit", shell: process.platform === "win32" });
  if (status) process.exit(status);
}

/** The sources as plain modules, for the tests to import one by one. */
const modules = () =>
  build({ absWorkingDir: here, entryPoints: readdirSync(join(here, "src")).map((file) => `src/${file}`), outdir: ".build", target: "es2021", logLevel: "warning" });

const commands = {
  async build() {
    await bundle(served);
    rmSync(join(here, "dist"), { recursive: true, force: true });
    const entryPoints = ["src/index.ts", "src/call.ts", "src/presence.ts", "src/auth.ts", "src/history.ts"];
    await build({ ...common, external: ["./history.js"], entryPoints, format: "esm", outdir: join(here, "dist"), sourcemap: true });
    run("node_modules/.bin/tsc", "--declaration", "--emitDeclarationOnly");
    commands.size();
  },
  size() {
    let over = false;
    for (const [file, { budget }] of Object.entries(bundles)) {
      const bytes = gzipSync(readFileSync(join(served, file)), { level: 9 }).length;
      console.log(`server/${file}: ${bytes} bytes gzipped${budget ? `, of ${budget}` : ""}`);
      if (bytes > budget) over = true;
    }
    if (over) process.exit(1);
  },
  async test() {
    await modules();
    const tests = readdirSync(join(here, "test")).filter((file) => file.endsWith(".test.js")).map((file) => join("test", file));
    run(process.execPath, "--test", ...tests);
  },
  async verify() {
    const folder = mkdtempSync(join(tmpdir(), "throughline-"));
    await bundle(folder);
    const stale = files.filter((file) => !readFileSync(join(folder, file)).equals(readFileSync(join(served, file))));
    rmSync(folder, { recursive: true });
    if (stale.length) {
      console.error(`stale, run npm run build: ${stale.join(", ")}`);
      process.exit(1);
    }
    console.log("the bundles are those of the sources");
  },
};

await commands[process.argv[2] ?? "build"]();
