// Express finds every handler by the path and the method that the guard has judged, however its routers are nested and
// whatever changes a request on its way.

import assert from "node:assert/strict";
import { test } from "node:test";

import express, { type Express, type RequestHandler } from "express";

import { ExpressGuard } from "../src/express.js";
import { answering, byPermission, guarding } from "./kit.js";
import { type Drawn, draw, drawRequest, isTheJudged, type Ran, Random, type Routing, sender } from "./routings.js";
import { listening } from "./webs.js";

const APPLICATIONS = 40;
const REQUESTS = 25;
const HEADERS = [
  {},
  {},
  { "X-Forwarded-Prefix": "/admin", "X-Forwarded-Host": "admin" },
  { "X-Original-URL": "/admin", "X-Rewrite-URL": "/m/admin" },
];

/** Changes a request as its headers say; some of these are how rewriting and overriding packages do it. */
const rewriting: RequestHandler = (req, _res, next) => {
  const [strip, to, method] = ["x-strip", "x-to", "x-method"].map((name) => req.headers[name]);
  if (typeof strip === "string" && req.url.startsWith(strip)) req.url = req.url.slice(strip.length);
  if (typeof to === "string") req.url = to;
  if (typeof method === "string") req.method = method;
  next();
};

const REWRITES = [
  ...[{}, {}, {}, {}],
  ...[
    { "X-Strip": "/a" },
    { "X-Strip": "/m" },
    { "X-To": "/admin" },
    { "X-To": "/m/admin/a" },
    { "X-Method": "POST" },
  ],
];

function applicationOf(random: Random, drawn: Drawn, guard: RequestHandler, ran: Ran[]): Express {
  const made = () => {
    const one = express();
    one.set("env", "test"); // it prints no errors
    one.set("case sensitive routing", random.chance(50));
    one.set("strict routing", random.chance(50));
    one.set("trust proxy", random.chance(50));
    return one;
  };
  const app = made();
  const [before, behind] = [random.chance(20), random.chance(50)];
  if (before) app.use(rewriting);
  app.use(guard);
  if (behind) app.use(rewriting);
  const routers = new Map<string, express.Router>();
  const rewritten: express.Router[] = [];
  for (const routing of drawn.routings) {
    const [first = "", ...rest] = routing.segments;
    let inner = routers.get(first);
    // A router for one of two spellings would take its routes out of the order, and Express calls the first that fits.
    const spellings = new Set(drawn.routings.map((one) => one.segments[0]).filter((one) => isSpelling(one, first)));
    if (inner === undefined && !first.startsWith("{") && spellings.size === 1 && random.chance(50)) {
      inner = random.chance(50)
        ? made()
        : express.Router({ caseSensitive: random.chance(50), strict: random.chance(50) });
      if (random.chance(20)) {
        inner.use(rewriting);
        rewritten.push(inner);
      }
      app.use(`/${first}`, inner);
      routers.set(first, inner);
    }
    if (inner === undefined) register(app, routing, routing.segments, ran);
    else register(inner, routing, rest, ran);
  }
  // Otherwise what comes behind a router would run because a handler within it was missed, by the path that was judged.
  for (const one of rewritten) one.use((_req, res) => void res.status(404).end());
  const errors: express.ErrorRequestHandler = (error, _req, res, _next) => {
    res.status(error.status ?? 500).end();
  };
  app.use(errors);
  if (drawn.prefix === "") return app;
  return made().use(drawn.prefix, app).use(errors);
}

function isSpelling(one: string | undefined, other: string): boolean {
  return one !== undefined && one.toLowerCase() === other.toLowerCase();
}

function register(router: express.Router, routing: Routing, segments: readonly string[], ran: Ran[]): void {
  const path = segments.map((one) => `/${one.replace(/^{(.*)}$/, ":$1")}`).join("");
  const pattern = routing.rest ? `${path === "" ? "/" : path}{${path === "" ? "" : "/"}*rest}` : path || "/";
  const handler: RequestHandler = (req, res) => {
    ran.push({ routing, params: req.params as Record<string, string> });
    res.end("ran");
  };
  if (routing.method === "") router.all(pattern, handler);
  else if (routing.method === "GET") router.get(pattern, handler);
  else router.post(pattern, handler);
}

test("the handler that Express calls is the handler of the route that was judged", async (t) => {
  const pdp = await answering(t, byPermission);
  const guard = guarding(t, pdp.address);
  const send = sender(t);
  const ran: Ran[] = [];
  let handled = 0;
  for (let seed = 1; seed <= APPLICATIONS; seed++) {
    const random = new Random(seed);
    const drawn = draw(random, random.of(["", "/m"]));
    const port = await listening(
      t,
      applicationOf(random, drawn, new ExpressGuard(guard, () => {}).middleware(drawn.map), ran),
    );
    for (let nth = 0; nth < REQUESTS; nth++) {
      const { method, target } = drawRequest(random, drawn);
      const headers = { Authorization: "Bearer a.b.c", ...random.of(HEADERS), ...random.of(REWRITES) };
      ran.length = 0;
      pdp.requests.length = 0;
      const status = await send(port, method, target, headers);
      isTheJudged(ran, pdp.requests, { seed, nth, method, target, headers, map: drawn.routings });
      assert.ok([200, 400, 403, 404].includes(status), `${seed} ${method} ${target} ${status}`);
      handled += ran.length;
    }
  }
  assert.ok(handled > APPLICATIONS, `${handled} requests came to a handler`);
});
