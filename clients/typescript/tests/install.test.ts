// What a stranger does: the commands of the README in an empty folder, and then its programs.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, type TestContext, test } from "node:test";

import { ROOT } from "./conformance-servers.js";
import { answering, byPermission, send } from "./kit.js";
import { portOf, withToken } from "./webs.js";

const FOLDER = `${ROOT}clients/typescript/`;
const README = readFileSync(`${FOLDER}README.md`, "utf8");
const NOT_CHECKED_OUT = new Set(["node_modules", "build", "dist"].map((name) => join(FOLDER, name)));
const UNPACKED = process.env["SOAK"] === undefined;
const START_MS = 60_000;
const NPM = {
  npm_config_prefer_offline: "true",
  npm_config_audit: "false",
  npm_config_fund: "false",
  npm_config_update_notifier: "false",
};

describe("in an empty folder beside a checkout", () => {
  let folder: string;
  let app: string;

  const run = (command: string, cwd = app) =>
    execFileSync("sh", ["-ec", command], { cwd, env: { ...process.env, ...NPM }, stdio: "pipe", encoding: "utf8" });

  before(() => {
    folder = mkdtempSync(join(tmpdir(), "stranger-"));
    app = join(folder, "app");
    mkdirSync(app);
    const checkout = join(folder, "pdp", "clients", "typescript");
    cpSync(FOLDER, checkout, { recursive: true, filter: (from) => !NOT_CHECKED_OUT.has(from) });
    const [, commands = ""] = /^```sh\n(.*?)^```/ms.exec(README) ?? [];
    assert.match(commands, /^npm ci --prefix .*^npm install /ms);
    // `npm ci` has installed the same packages here; to unpack them again takes a sixth of all processor time.
    const modules = `'${FOLDER}node_modules/.' '${join(checkout, "node_modules")}'`;
    if (UNPACKED) run(`cp -RPl ${modules} || cp -RP ${modules}`); // links, or copies on another file system
    run(UNPACKED ? commands.replace(/^npm ci /m, "npm run prepare ") : commands);
  });

  after(() => rmSync(folder, { recursive: true, force: true }));

  const OUTCOMES = [
    ["PUT /courses/1", 401],
    [withToken("PUT /courses/1"), 200],
    [withToken("GET /admin/x"), 403],
    ["GET /healthz", 200],
    ["GET /nowhere", 403],
  ] as const;

  for (const [framework, alsoFor = ""] of [["Express", " @types/express"], ["Hono"]] as const) {
    test(`the program for ${framework} in the README is installed, typed and answers`, async (t) => {
      const [, section = ""] = new RegExp(`^## ${framework}$(.*?)^## `, "ms").exec(README) ?? [];
      const [, install = ""] = /^`(npm install [^`]+)`/m.exec(section) ?? [];
      run(`${install} @types/node@20${alsoFor}`);
      const [, program = ""] = /^```ts\n(.*?)^```/ms.exec(section) ?? [];
      const pdp = await answering(t, (request) =>
        byPermission({ ...request, permission: request.permission.replace(/^course:.*/, "course:allowed") }),
      );
      const port = await freePort(t);
      const main = program.replace('"127.0.0.1:50051"', JSON.stringify(pdp.address)).replace("3000", `${port}`);
      writeFileSync(join(app, "main.mts"), main);
      run(`${FOLDER}node_modules/.bin/tsc --strict --skipLibCheck --module nodenext --target es2022 main.mts`);
      await isAnswered(t, port);
    });
  }

  /** Runs main.mjs, and asks it. */
  async function isAnswered(t: TestContext, port: number): Promise<void> {
    const child = spawn("node", ["main.mjs"], { cwd: app, stdio: ["ignore", "ignore", "pipe"] });
    t.after(() => child.kill("SIGKILL"));
    let said = "";
    child.stderr.on("data", (some) => {
      said += some;
    });
    const ends = performance.now() + START_MS;
    while (!(await send(port, "GET /healthz").catch(() => null))) {
      assert.ok(performance.now() < ends && child.exitCode === null, said);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    for (const [head, status] of OUTCOMES) {
      const received = await send(port, head);
      assert.equal(received.status, status, `${head} ${received.body} ${said}`);
      if (head.includes("PUT") && status === 200) assert.equal(received.body, "edited by user_ada");
    }
    // Read from a pipe, so it may come a little later.
    while (!said.includes("route refused: no_route (GET /nowhere)")) {
      assert.ok(performance.now() < ends, said);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  test("a link to the folder works too", () => {
    run("rm -rf node_modules package.json package-lock.json && npm install ../pdp/clients/typescript");
    const program = 'import { Guard } from "pdp-client"; new Guard("127.0.0.1:1").close(); console.log("imported")';
    assert.equal(run(`node --input-type=module -e '${program}'`), "imported\n");
  });
});

async function freePort(t: TestContext): Promise<number> {
  const probe = createServer().listen(0, "127.0.0.1");
  const port = await portOf(t, probe as Parameters<typeof portOf>[1]);
  await new Promise((resolve) => probe.close(resolve));
  return port;
}
