// Hono finds every handler by the path and the method that the guard has judged, whichever router it uses, however
// applications are nested, and on servers that tell the target as it was received and on those that do not.

import assert from "node:assert/strict";
import type { Server } from "node:net";
import { type TestContext, test } from "node:test";

import { serve } from "@hono/node-server";
import { type Context, Hono } from "hono";
import { methodOverride } from "hono/method-override";
import { PatternRouter } from "hono/router/pattern-router";
import { RegExpRouter } from "hono/router/reg-exp-router";
import { SmartRouter } from "hono/router/smart-router";
import { TrieRouter } from "hono/router/trie-router";

import { HonoGuard } from "../src/hono.js";
import type { Routes } from "../src/index.js";
import { answering, byPermission, guarding } from "./kit.js";
import { type Drawn, draw, drawRequest, isTheJudged, type Ran, Random, type Routing, sender } from "./routings.js";
import { portOf } from "./webs.js";

type Sent = (method: string, target: string, headers: Record<string, string>) => Promise<number>;

const APPLICATIONS = 30;
const REQUESTS = 20;
const HEADERS = [
  {},
  {},
  { "X-Forwarded-Prefix": "/admin", "X-Original-URL": "/admin" },
  { "X-Method": "POST" },
  { Host: "admin" },
];

// By the host too, as Hono's documentation shows; and by what is behind a prefix.
const PATHS = [
  (request: Request) => `/${new URL(request.url).hostname}${new URL(request.url).pathname}`,
  (request: Request) => new URL(request.url).pathname.replace(/^\/m(?=\/)/, ""),
];

function optionsOf(random: Random) {
  const router = random.of([
    () => new PatternRouter<never>(),
    () => new TrieRouter<never>(),
    () => new SmartRouter<never>({ routers: [new RegExpRouter(), new TrieRouter()] }),
    null,
  ]);
  return {
    ...(random.chance(20) ? { getPath: random.of(PATHS) } : { strict: random.chance(50) as true }),
    ...(router === null ? {} : { router: router() }),
  };
}

function applicationOf(random: Random, drawn: Drawn, pdp: HonoGuard, ran: Ran[]): Hono {
  const { routings, prefix, map } = drawn;
  const outer = new Hono(optionsOf(random));
  if (random.chance(40)) {
    const inner = guarded(new Hono(optionsOf(random)), pdp, map, prefix === "" ? undefined : outer);
    for (const one of routings) register(inner, one, "", ran);
    // `mount` takes its prefix away, and the map of what is mounted names the paths that are left.
    return prefix === "" ? outer.mount("/m", inner.fetch) : outer.route(prefix, inner);
  }
  guarded(outer, pdp, map);
  const based = prefix !== "" && random.chance(50) ? outer.basePath(prefix) : outer;
  for (const one of routings) register(based, one, based === outer ? prefix : "", ran);
  return outer;
}

function guarded(app: Hono, pdp: HonoGuard, map: Routes, whole: Hono = app): Hono {
  app.use(pdp.middleware(map));
  app.use(methodOverride({ app: whole, header: "X-Method" }));
  return app;
}

function register(app: Hono, routing: Routing, prefix: string, ran: Ran[]): void {
  const path = routing.segments.map((one) => `/${one.replace(/^{(.*)}$/, ":$1")}`).join("");
  const pattern = `${prefix}${path}${routing.rest ? "/*" : ""}` || "/";
  const handler = (c: Context) => {
    ran.push({ routing, params: c.req.param() });
    return c.text("ran");
  };
  if (routing.method === "") app.all(pattern, handler);
  else app.on(routing.method, pattern, handler);
}

async function isHeld(t: TestContext, serving: (app: Hono) => Promise<Sent>): Promise<void> {
  const scripted = await answering(t, byPermission);
  const pdp = new HonoGuard(guarding(t, scripted.address), () => {});
  const ran: Ran[] = [];
  let handled = 0;
  for (let seed = 1; seed <= APPLICATIONS; seed++) {
    const random = new Random(seed);
    const drawn = draw(random, random.of(["", "/m"]));
    const send = await serving(applicationOf(random, drawn, pdp, ran));
    for (let nth = 0; nth < REQUESTS; nth++) {
      const { method, target } = drawRequest(random, drawn);
      const headers = { Authorization: "Bearer a.b.c", ...random.of(HEADERS) };
      ran.length = 0;
      scripted.requests.length = 0;
      const status = await send(method, target, headers);
      // An overridden method is judged again: the last question is the one that counts.
      const asked = "X-Method" in headers ? scripted.requests.slice(-1) : scripted.requests;
      isTheJudged(ran, asked, { seed, nth, method, target, headers, map: drawn.routings });
      assert.ok([200, 400, 403, 404].includes(status), `${seed} ${method} ${target} ${status}`);
      handled += ran.length;
    }
  }
  assert.ok(handled > APPLICATIONS, `${handled} requests came to a handler`);
}

test("the handler that Hono calls is the handler of the route that was judged", async (t) => {
  const send = sender(t);
  await isHeld(t, async (app) => {
    const port = await portOf(t, serve({ fetch: app.fetch, port: 0, hostname: "127.0.0.1" }) as Server);
    return (...request) => send(port, ...request);
  });
});

test("it is also where a server tells only the URL that it has cleaned", async (t) => {
  await isHeld(t, async (app) => async (method, target, headers) => {
    if (!URL.canParse(target, "http://localhost")) return 400;
    return (await app.request(new URL(target, "http://localhost"), { method, headers })).status;
  });
});
