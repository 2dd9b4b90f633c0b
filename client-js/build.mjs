// Builds, measures and verifies the bundles. `node build.mjs [build|size|test|verify]`
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = import.meta.dirname ?? new URL(".", import.meta.url).pathname;
const served = join(here, "../server");
const bundles = ["client.js", "client.global.js"];
const BUDGET = 8000; // bytes, gzip -9
const { version } = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));
const common = { absWorkingDir: here, entryPoints: ["src/index.ts"], bundle: true, target: "es2020", logLevel: "warning" };

// Names that never leave the bundle: not the application's, the page's, or the wire's. Shortened in the served files.
const internal = `
  phase asleep health race racing queue joinAt trip attempt ordered upAt better step suspect misses flaps since died demoted started trusted proved opened
  fed until effects take begin drop leave endRace renew heard move above plan nextStep rise demote settled lost lostProbe raceGoesOn judge
  retreat fail tick allow forgive network greeted told carrier adopt sinks full resting wanted presented unread deliver skip arrive
  meet tell drained rest unheard guard spoken kind path report changed forget wire waiting over order probes feed
`.trim().split(/\s+/);

async function bundle(folder) {
  const small = { ...common, minify: true, mangleProps: new RegExp(`^(${internal.join("|")})$`), banner: { js: `/*! throughline ${version} | MIT */` } };
  await build({ ...small, format: "esm", outfile: join(folder, "client.js") });
  await build({ ...small, format: "iife", globalName: "Throughline", outfile: join(folder, "client.global.js") });
}

function run(command, ...args) {
  const { status } = spawnSync(command, args, { cwd: here, stdio: "inherit", shell: process.platform === "win32" });
  if (status) process.exit(status);
}

/** The sources as plain modules, for the tests to import one by one. */
const modules = () =>
  build({ absWorkingDir: here, entryPoints: readdirSync(join(here, "src")).map((file) => `src/${file}`), outdir: ".build", target: "es2020", logLevel: "warning" });

const commands = {
  async build() {
    await bundle(served);
    rmSync(join(here, "dist"), { recursive: true, force: true });
    await build({ ...common, format: "esm", outfile: join(here, "dist/index.js"), sourcemap: true });
    run("node_modules/.bin/tsc", "--declaration", "--emitDeclarationOnly");
    commands.size();
  },
  size() {
    const bytes = gzipSync(readFileSync(join(served, "client.js")), { level: 9 }).length;
    console.log(`server/client.js: ${bytes} bytes gzipped, of ${BUDGET}`);
    if (bytes > BUDGET) process.exit(1);
  },
  async test() {
    await modules();
    const files = readdirSync(join(here, "test")).filter((file) => file.endsWith(".test.js")).map((file) => join("test", file));
    run(process.execPath, "--test", ...files);
  },
  async verify() {
    const folder = mkdtempSync(join(tmpdir(), "throughline-"));
    await bundle(folder);
    const stale = bundles.filter((file) => !readFileSync(join(folder, file)).equals(readFileSync(join(served, file))));
    rmSync(folder, { recursive: true });
    if (stale.length) {
      console.error(`stale, run npm run build: ${stale.join(", ")}`);
      process.exit(1);
    }
    console.log("the bundles are those of the sources");
  },
};

await commands[process.argv[2] ?? "build"]();
