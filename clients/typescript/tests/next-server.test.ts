// What the application of next-app answers: built by `next build`, on `next start`, before a real PDP.

import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { after, before, describe, it } from "node:test";
import { inspect, promisify } from "node:util";

import { isReverificationHint } from "@clerk/shared/authorization-errors";

import { ROOT, type Servers, SKIP, startServers } from "./conformance-servers.js";
import { type Received, send } from "./kit.js";
import { drawRequest, Random } from "./routings.js";

const FOLDER = `${ROOT}clients/typescript/`;
const NEXT = `${FOLDER}node_modules/next/dist/bin/next`;
const ENVIRONMENT = { ...process.env, NEXT_TELEMETRY_DISABLED: "1" };
const APP = `${FOLDER}build/next-app`;
const BUILD_MS = 300_000;
const START_MS = 60_000;
const RANDOM_PATHS = process.env["SOAK"] === undefined ? 50 : 150;
// The server ends when its stdin is closed, however this process ends.
const UNTIL_STDIN_ENDS = 'node "$@" & pid=$!; read _; kill "$pid"; wait "$pid"';

describe("Next.js", { skip: SKIP }, () => {
  let servers: Servers;
  let next: ChildProcess;
  let port: number;
  let actions: ReadonlyMap<string, string>;

  before(async () => {
    // Next.js keeps there what it has compiled: a second run builds in a fifth of the processor time.
    mkdirSync(APP, { recursive: true });
    for (const name of readdirSync(APP)) {
      if (name !== ".next") rmSync(`${APP}/${name}`, { recursive: true });
    }
    cpSync(`${FOLDER}tests/next-app`, APP, { recursive: true });
    await promisify(execFile)("node", [NEXT, "build", APP], { env: ENVIRONMENT, timeout: BUILD_MS });
    servers = await startServers();
    port = await freePort();
    const { node } = JSON.parse(readFileSync(`${APP}/.next/server/server-reference-manifest.json`, "utf8"));
    actions = new Map(Object.entries<{ exportedName: string }>(node).map(([id, one]) => [one.exportedName, id]));
    const start = [
      "-c",
      UNTIL_STDIN_ENDS,
      "sh",
      NEXT,
      "start",
      APP,
      "--hostname",
      "127.0.0.1",
      "--port",
      `${port}`,
    ];
    const env = { ...ENVIRONMENT, PDP_SERVER: servers.pdp, PDP_API_KEY: servers.api_key };
    next = spawn("sh", start, { env, stdio: ["pipe", "ignore", "ignore"] });
    const ends = performance.now() + START_MS;
    while (
      !(await fetch(`http://127.0.0.1:${port}/school/healthz`, { signal: AbortSignal.timeout(5_000) }).catch(
        () => null,
      ))
    ) {
      assert.ok(performance.now() < ends, "Next.js did not start");
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  });

  after(async () => {
    if (next) {
      const exit = once(next, "exit");
      next.stdin?.end();
      await exit;
    }
    await servers?.stop();
  });

  const cookieOf = (who: string) => `Cookie: __session=${servers.tokens[who]}\r\n`;

  function get(path: string, who = "none", headers = ""): Promise<Received> {
    return send(port, `GET ${path} HTTP/1.1\r\n${headers}${who === "none" ? "" : cookieOf(who)}`);
  }

  async function call(action: string, who: string, path: string, ...sent: unknown[]): Promise<Response> {
    return fetch(`http://127.0.0.1:${port}/school${path}`, {
      method: "POST",
      headers: {
        "Next-Action": actions.get(action) ?? "",
        "Content-Type": "text/plain;charset=UTF-8",
        Cookie: `__session=${servers.tokens[who]}`,
      },
      body: JSON.stringify(sent),
    });
  }

  // --- the proxy -------------------------------------------------------------------------------

  it("shows a page to who has its permission, of both routers", async () => {
    for (const path of ["/school/admin", "/school/legacy/admin", "/school/en/legacy/admin"]) {
      const shown = await get(path, "admin");
      assert.ok(shown.status === 200 && shown.body.includes("ADMINISTRATION"), inspect(shown));
      assert.equal((await get(path, "student")).status, 403);
      assert.equal((await get(path)).status, 401);
    }
    assert.match((await get("/school/x/y", "student")).body, /ANYTHING/);
    assert.equal((await get("/school/x/y")).status, 401);
    assert.match((await get("/school/healthz")).body, /HEALTHY/);
    assert.match((await get("/school/courses/algebra", "instructor")).body, /ANYTHING/);
    assert.equal((await get("/school/courses/biology", "instructor")).status, 403);
  });

  it("shows a page to nobody else, however its path is written", async () => {
    const build = readFileSync(`${APP}/.next/BUILD_ID`, "utf8");
    const pages = ["admin", "legacy/admin"].flatMap((page) => [
      ...[page, `${page}/`, `./${page}`, `x/../${page}`, `x/%2e%2e/${page}`, `healthz/../${page}`, `/${page}`],
      ...[`\\${page}`, `healthz\\..\\${page}`, `%2f${page}`, `healthz%2f..%2f${page}`, `healthz/..;/${page}`],
      ...[page.replace("a", "%61"), page.replace("a", "%2561"), page.toUpperCase(), `${page};x`, `${page}%2f`],
      ...[`${page}%00`, `${page}%20`, `${page}.rsc`, `${page}.json`, `${page}.txt`, `${page}#x`, `${page}?_rsc=1`],
      ...[`${page}.segments/_tree.segment.rsc`, `${page}.segments/${page}/__PAGE__.segment.rsc`],
      ...[`_next/data/${build}/${page}.json`, `_next/data/${build}/en/${page}.json`, `_next/data/x/${page}.json`],
      ...[`_next/static/../../${page}`, `_next/static/..%2f..%2f${page}`, `_next/image?url=/${page}&w=16&q=75`],
      ...[`fr/${page}`, `en/${page}`, `FR/${page}`, `fr/en/${page}`, `school/${page}`, `healthz?nextLocale=fr`],
    ]);
    const paths = [...pages.map((page) => `/school/${page}`), ...pages.map((page) => `/${page}`)];
    paths.push("//school/admin", "/School/admin", "http://127.0.0.1/school/admin", "school/admin", "*");
    for (const path of paths) {
      for (const who of ["none", "student"]) {
        const received = await get(path, who);
        assert.ok(!received.body.includes("ADMINISTRATION"), `${who} ${path} ${inspect(received)}`);
      }
    }
  });

  it("shows a page to nobody else, whatever headers say", async () => {
    const names = "proxy middleware src/proxy src/middleware pages/_middleware".split(" ");
    const headers = [
      ...names.map((name) => `x-middleware-subrequest: ${Array(5).fill(name).join(":")}`),
      ..."x-middleware-next x-middleware-invoke x-nextjs-data x-prerender-revalidate x-now-route-matches"
        .split(" ")
        .map((name) => `${name}: 1`),
      ..."x-middleware-rewrite x-matched-path x-invoke-path x-invoke-output x-original-url x-rewrite-url"
        .split(" ")
        .map((name) => `${name}: /school/admin`),
      "x-middleware-override-headers: cookie\r\nx-middleware-request-cookie: __session=x",
      "x-action-forwarded: 1",
      "rsc: 1",
      "rsc: 1\r\nnext-router-prefetch: 1\r\nnext-router-segment-prefetch: /admin",
    ];
    for (const header of headers) {
      for (const path of ["/school/healthz", "/school/admin", "/school/legacy/admin", "/school/admin?_rsc=1"]) {
        const received = await get(path, "student", `${header}\r\n`);
        assert.ok(!received.body.includes("ADMINISTRATION"), `${path} ${header} ${inspect(received)}`);
      }
    }
  });

  it("takes no other page for a public one", async () => {
    for (const path of [
      "_next/data/x/healthz.json",
      "_next/data/admin/healthz.json",
      "healthz.segments/x.segment.rsc",
    ]) {
      const received = await get(`/school/${path}`);
      assert.ok([401, 403].includes(received.status), `${path} ${inspect(received)}`);
    }
  });

  it("shows of random paths what the route that was judged lets see, and nothing else", async () => {
    const random = new Random(1);
    const routings = ["admin", "legacy/admin", "healthz", "may", "courses/{v1}", "courses/algebra", "x"].map(
      (path) => ({
        method: "" as const,
        segments: path.split("/"),
        rest: random.chance(30),
        permission: "",
      }),
    );
    let shown = 0;
    for (let nth = 0; nth < RANDOM_PATHS; nth++) {
      const { target } = drawRequest(random, { prefix: random.of(["/school", "/school", "/school/fr"]), routings });
      const [none, student, instructor] = await Promise.all(
        ["none", "student", "instructor"].map((who) => get(target, who)),
      );
      const what = inspect({ target, none, student, instructor });
      assert.ok(none && student && instructor);
      assert.ok(none.status !== 200 || none.body.includes("HEALTHY"), what);
      for (const received of [student, instructor]) {
        assert.ok(!received.body.includes("ADMINISTRATION"), what);
        const all = /ANYTHING (?:<!-- -->)?([^<]*)</.exec(received.body)?.[1]?.split(" ");
        // The resource that the page is about is the one that was asked about.
        if (all?.length === 2 && all[0] === "courses") {
          assert.ok(received === instructor && all[1] === "algebra", what);
        }
        shown += Number(received.status === 200);
      }
    }
    assert.ok(shown > RANDOM_PATHS / 10, `${shown} pages were shown`);
  });

  it("lets the CORS layer of the proxy answer preflights, and guards the OPTIONS handlers of the application", async () => {
    const options = (headers: string) => send(port, `OPTIONS /school/api/courses/algebra HTTP/1.1\r\n${headers}`);
    const preflight = await options("Origin: https://front.example\r\nAccess-Control-Request-Method: PUT\r\n");
    assert.deepEqual(
      [preflight.status, preflight.headers.get("access-control-allow-origin"), preflight.body],
      [204, "https://front.example", ""],
    );
    assert.equal((await options("")).status, 401);
    assert.equal((await options(cookieOf("student"))).status, 403);
    assert.equal((await options(cookieOf("instructor"))).body, "of the application");
  });

  // --- actions ---------------------------------------------------------------------------------

  it("lets who may call an action, with the verified actor", async () => {
    const answer = await call("edit", "instructor", "/may", "algebra");
    assert.match(await answer.text(), /\{"editedBy":"user_ivan","id":"algebra"\}/);
  });

  it("refuses everybody else in the action itself, through whichever page it is called", async () => {
    const refused = /"refused":\{"status":403,"error":"forbidden","decisionId":"[0-9a-f-]{36}"\}/;
    assert.match(await (await call("edit", "student", "/may", "algebra")).text(), refused);
    assert.match(await (await call("edit", "instructor", "/may", "biology")).text(), refused);
    // Its form is on a page for administrators.
    assert.match(await (await call("adminOnly", "student", "/may")).text(), refused);
    for (const path of ["/healthz", "/x", "/admin"]) {
      for (const who of ["none", "student", "expired"]) {
        assert.doesNotMatch(await (await call("adminOnly", who, path)).text(), /done/, `${who} ${path}`);
      }
    }
    assert.match(await (await call("adminOnly", "admin", "/healthz")).text(), /done/);
  });

  it("refuses in an action what the action asks by itself", async () => {
    assert.match(await (await call("nested", "student", "/may")).text(), /"refused":\{"status":403,/);
    assert.match(await (await call("nested", "admin", "/may")).text(), /\{"done":true\}/);
  });

  it("asks for a verification in the way that useReverification of Clerk's front ends expects of an action", async () => {
    const text = await (await call("unverified", "student", "/may")).text();
    const found = /\{"refused":.*\}/.exec(text);
    assert.ok(found, text);
    const result: unknown = JSON.parse(found[0]);
    assert.ok(isReverificationHint(result));
    assert.deepEqual(result.clerk_error.metadata?.reverification, { level: "second_factor", afterMinutes: 9 });
  });

  it("does nothing in an action without a resource to ask about, and shows no error of the application", async () => {
    const sent = [[], [null], [{ id: "algebra" }], [["algebra"]], [7]];
    for (const one of sent) {
      const answer = await call("edit", "instructor", "/may", ...one);
      const text = await answer.text();
      assert.ok(answer.status === 500 && !text.includes("editedBy"), `${inspect(one)} ${text}`);
    }
    for (const name of ["absent", "unsaid", "broken"]) {
      const answer = await call(name, "student", "/may");
      const text = await answer.text();
      assert.ok(answer.status === 500 && !text.includes("done") && !text.includes("secret"), `${name} ${text}`);
    }
  });

  // --- handlers and pages ----------------------------------------------------------------------

  it("gives a handler the path, decoded once, and the body", async () => {
    const put = (id: string, who: string) =>
      fetch(`http://127.0.0.1:${port}/school/api/courses/${id}`, {
        method: "PUT",
        headers: { Authorization: `Bearer ${servers.tokens[who]}` },
        body: "a title",
      });
    const answer = await put("%C3%A9t%C3%A9%201", "instructor");
    assert.deepEqual(await answer.json(), { id: "été 1", actor: "user_ivan", sent: "a title" });
    const refused = await put("algebra", "student");
    assert.equal(refused.status, 403);
    assert.deepEqual(Object.keys((await refused.json()) as object), ["error", "decision_id"]);
    assert.equal(refused.headers.get("cache-control"), "no-store");
  });

  it("asks for who sent this very request, whoever came before", async () => {
    const held = async (who: string) =>
      /<pre>(.*?)<\/pre>/.exec((await get("/school/may", who)).body)?.[1]?.replaceAll("&quot;", '"');
    const view = '{"permission":"course:view"}';
    for (let times = 0; times < 2; times++) {
      assert.equal(
        await held("instructor"),
        `[{"permission":"course:edit","type":"course","id":"algebra"},${view}]`,
      );
      assert.equal(await held("student"), `[${view}]`);
    }
  });
});

/** Below the ports that the system gives to outgoing connections: one of these would be taken by another process. */
async function freePort(): Promise<number> {
  for (;;) {
    const free = 10_000 + Math.floor(Math.random() * 22_000);
    const probe = createServer();
    const listening = await new Promise<boolean>((resolve) => {
      probe.once("error", () => resolve(false));
      probe.listen(free, "127.0.0.1", () => resolve(true));
    });
    if (!listening) continue;
    await new Promise((resolve) => probe.close(resolve));
    return free;
  }
}
