// What the cases of clients/conformance do not say, and a second matcher, written to be read.

import assert from "node:assert/strict";
import { test } from "node:test";

import { RouteMapInvalid, RouteRefused, Routes } from "../src/index.js";
import { type Asked, type Needs, PUBLIC, type Requirement, ROUTES_MAX } from "../src/routes.js";

test("a refusal says whether the map or the path is the reason", () => {
  const routes = new Routes({ "/admin/**": "admin:access" });
  assert.throws(() => routes.match("GET", "/x"), { name: "RouteRefused", reason: "no_route", httpStatus: 403 });
  assert.throws(() => routes.match("GET", "/admin//x"), { reason: "ambiguous_path" });
});

test("all problems of a map are told at once", () => {
  assert.throws(
    () => new Routes({ x: "a:b", "/a": "no", "/b/{x}": "a:b", "/{y}/c": "a:b" }),
    (error: RouteMapInvalid) => {
      assert.deepEqual(
        error.problems.map((one) => [...one.routes].sort()),
        [["x"], ["/a"], ["/b/{x}", "/{y}/c"]],
      );
      return (
        error.message.includes('"x": its path must begin with /') && error.message.includes('"/a": "no" is not')
      );
    },
  );
});

test("what is no requirement is not taken for one", () => {
  for (const needs of [
    null,
    undefined,
    true,
    1,
    [],
    ["public"],
    {},
    { public: true },
    { permission: null },
    { permission: ["a:b"] },
    { permission: "a:b", resources: "a/{x}" },
    { permission: "a:b", resource: undefined },
    { permission: "a:b", resource: null },
    { permission: "a:b", resource: ["a/{x}"] },
  ]) {
    assert.throws(
      () => new Routes({ "/{x}": needs as unknown as Requirement }),
      RouteMapInvalid,
      JSON.stringify(needs),
    );
  }
  for (const routes of [undefined, null, "/a", new Map([["/a", "public"]])]) {
    assert.throws(() => new Routes(routes as unknown as Record<string, string>), TypeError);
  }
});

test("names of JavaScript's own are literals like any other", () => {
  const routes = new Routes({ "/__proto__/{id}": "a:b", "/constructor": "a:c", "/{x}": "a:d" });
  assert.deepEqual(routes.match("GET", "/__proto__/1"), { permission: "a:b", resource: null });
  assert.deepEqual(routes.match("GET", "/constructor"), { permission: "a:c", resource: null });
  assert.deepEqual(routes.match("GET", "/toString"), { permission: "a:d", resource: null });
  assert.throws(() => routes.match("GET", "/x/valueOf"), RouteRefused);
  assert.throws(() => new Routes(JSON.parse('{"__proto__": "public"}')), RouteMapInvalid);
});

test("ten thousand routes are made and asked without delay", () => {
  const many = (make: (number: number) => [string, string]) =>
    Object.fromEntries(Array.from({ length: ROUTES_MAX / 2 }, (_, number) => make(number)));
  const literals = many((number) => [`/tenants/t${number}/**`, "tenant:access"]);
  const things = many((number) => [`GET /things/{id}/thing${number}`, `thing${number}:view`]);
  const clashing = many((number) => [`GET /tenants/{id}/thing${number}`, `thing${number}:view`]);
  assert.throws(() => new Routes({ ...literals, ...clashing }), /neither/);
  const routes = new Routes({ ...literals, ...things });
  assert.deepEqual(routes.match("GET", "/things/a/thing4999"), { permission: "thing4999:view", resource: null });
  assert.deepEqual(routes.match("GET", "/tenants/t4999/x"), { permission: "tenant:access", resource: null });
  assert.throws(() => new Routes({ ...literals, ...things, "/x": "a:b" }), /at most 10000/);
});

test("a map of which no one could say what it means does not keep a server busy", () => {
  const random = randomOf(7);
  const routes: Record<string, string> = {};
  for (let end = 0; end < 500; end++) {
    const segments = Array.from({ length: 25 }, (_, place) => (random(2) === 0 ? "a" : `{v${place}}`));
    routes[`/${segments.join("/")}/${end}`] = "a:b";
  }
  assert.throws(() => new Routes(routes), /too many variables/);
});

test("no path and no method is anything but answered or refused", () => {
  const routes = new Routes({
    "/**": PUBLIC,
    "/a/{x}": { permission: "a:b", resource: "a/{x}" },
    "GET /a/**": "a:c",
  });
  const random = randomOf(11);
  const letters = "/%.;\\#?aA25efcC0 \u0000é\ud800";
  for (let round = 0; round < 20_000; round++) {
    const path = `/a/${Array.from({ length: random(12) }, () => letters[random(letters.length)]).join("")}`;
    const asked = matched(routes, ["GET", "POST", "", "HEAD"][random(4)] as string, path);
    if (typeof asked === "object" && asked.resource !== null) {
      assert.match(asked.resource.id, /^[^/\\%;?#\0\n]+$/u, path);
    }
  }
});

// --- a second matcher -----------------------------------------------------------------------------------------------

const METHODS = ["", "", "", "GET ", "HEAD ", "POST "];
const SEGMENTS = ["a", "A", "b", "{}", "{}"];
const ENDS = ["", "", "/", "/**"];
const NEEDS = ["t:p", "t:q", PUBLIC, "first", "last"];
const PATHS = pathsOf(4);

function pathsOf(length: number): string[] {
  const found = ["/"];
  let all = [""];
  for (let count = 0; count < length; count++) {
    all = all.flatMap((path) => ["a", "A", "b", "z"].map((one) => `${path}/${one}`));
    found.push(...all, ...all.map((path) => `${path}/`));
  }
  return found;
}

/** The same numbers for the same seed, so that a failure can be seen again. */
function randomOf(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

function written(random: (below: number) => number): [string, Requirement] {
  const pick = <T>(list: readonly T[]) => list[random(list.length)] as T;
  let variable = 0;
  const segments = Array.from({ length: random(4) }, () => pick(SEGMENTS)).map((one) =>
    one === "{}" ? `{${"xyz"[variable++]}}` : one,
  );
  const path = segments.map((one) => `/${one}`).join("") + pick(ENDS);
  const needs = pick(NEEDS);
  const names = segments.filter((one) => one.startsWith("{"));
  const chosen = needs === "first" ? names[0] : names.at(-1);
  const route = pick(METHODS) + (path || "/");
  if (needs !== "first" && needs !== "last") return [route, needs];
  return [route, chosen === undefined ? { permission: "t:r" } : { permission: "t:r", resource: `t/${chosen}` }];
}

interface Taken {
  readonly points: readonly number[];
  readonly ends: readonly [ends: boolean, named: number];
  readonly variables: Readonly<Record<string, string>>;
}

/** How specific a route is on a path, and its variables; null: it does not take it. */
function takenBy(route: string, method: string, path: string, loose: boolean): Taken | null {
  const space = route.indexOf(" ");
  const own = space < 0 ? "" : route.slice(0, space);
  const named = own === method ? 3 : own === "GET" && method === "HEAD" ? 2 : 1;
  if (own !== "" && named === 1) return null;
  let pattern = route.slice(space + 1);
  const rest = pattern.endsWith("/**");
  if (rest) pattern = pattern.slice(0, -3);
  else if (!loose && pattern.endsWith("/") !== path.endsWith("/")) return null;
  const wanted = pattern.split("/").filter((one) => one !== "");
  const given = path.split("/").filter((one) => one !== "");
  if (given.length < wanted.length || (given.length > wanted.length && !rest)) return null;
  const variables: Record<string, string> = {};
  const points = given.map((have, place) => {
    const want = wanted[place];
    if (want === undefined) return 0;
    if (want.startsWith("{")) {
      variables[want] = have;
      return 1;
    }
    return want === have || (loose && want.toLowerCase() === have.toLowerCase()) ? 2 : Number.NaN;
  });
  return points.some(Number.isNaN) ? null : { points, ends: [!rest, named], variables };
}

/** -1, 0 or 1; null: neither is. */
function moreSpecific(one: Taken, other: Taken): number | null {
  const signs = new Set(one.points.map((point, place) => Math.sign(point - (other.points[place] as number))));
  signs.delete(0);
  if (signs.size === 2) return null;
  const [sign] = signs;
  return sign ?? Math.sign(Number(one.ends[0]) - Number(other.ends[0]) || one.ends[1] - other.ends[1]);
}

function asksOf(needs: Requirement, taken: Taken): string {
  if (needs === PUBLIC) return needs;
  const { permission, resource } = typeof needs === "string" ? { permission: needs } : (needs as Needs);
  const [type, variable] = resource?.split("/") ?? [];
  const found = type === undefined ? null : { type, id: taken.variables[variable as string] };
  return JSON.stringify({ permission, resource: found });
}

function allTaken(routes: Record<string, Requirement>, method: string, path: string, loose: boolean) {
  return Object.entries(routes).flatMap(([route, needs]) => {
    const taken = takenBy(route, method, path, loose);
    return taken === null ? [] : [{ route, taken, asks: asksOf(needs, taken) }];
  });
}

function isAmbiguous(routes: Record<string, Requirement>): boolean {
  const words = (route: string) =>
    route
      .split("/")
      .filter((one) => !one.startsWith("{"))
      .join("/");
  return ["GET", "HEAD", "POST", "PUT"].some((method) =>
    PATHS.some((path) => {
      const found = allTaken(routes, method, path, true);
      return found.some((one, place) =>
        found.slice(place + 1).some((other) => {
          const more = moreSpecific(one.taken, other.taken);
          const sameSlash = one.route.endsWith("/") === other.route.endsWith("/");
          const same = sameSlash && words(one.route) === words(other.route);
          return more === null || (more === 0 && (one.asks !== other.asks || same));
        }),
      );
    }),
  );
}

function secondOpinion(routes: Record<string, Requirement>, method: string, path: string): string {
  const standing = allTaken(routes, method, path, false);
  const best = standing.find((one) => standing.every((other) => (moreSpecific(one.taken, other.taken) ?? 0) >= 0));
  if (best === undefined) return "refused";
  const could = allTaken(routes, method, path, true);
  const others = could.filter((one) => moreSpecific(best.taken, one.taken) !== 1);
  return others.every((one) => one.asks === best.asks) ? best.asks : "refused";
}

function matched(routes: Routes, method: string, path: string): Asked | "public" | "refused" {
  try {
    return routes.match(method, path);
  } catch (error) {
    assert.ok(error instanceof RouteRefused);
    return "refused";
  }
}

test("a second matcher agrees, and the order of routes does not matter", () => {
  let made = 0;
  for (let seed = 1; seed <= 250; seed++) {
    const random = randomOf(seed);
    const routes = Object.fromEntries(Array.from({ length: random(7) }, () => written(random)));
    const backwards = Object.fromEntries(Object.entries(routes).reverse());
    const shown = `seed ${seed}: ${JSON.stringify(routes)}`;
    let both: Routes[];
    try {
      both = [new Routes(routes), new Routes(backwards)];
    } catch (error) {
      assert.ok(error instanceof RouteMapInvalid);
      assert.ok(isAmbiguous(routes), shown);
      assert.throws(() => new Routes(backwards), RouteMapInvalid);
      continue;
    }
    assert.ok(!isAmbiguous(routes), shown);
    made++;
    for (let asked = 0; asked < 60; asked++) {
      const path = PATHS[random(PATHS.length)] as string;
      const method = ["GET", "HEAD", "PUT"][random(3)] as string;
      const expected = secondOpinion(routes, method, path);
      for (const one of both) {
        const found = matched(one, method, path);
        assert.equal(
          typeof found === "string" ? found : JSON.stringify(found),
          expected,
          `${shown} ${method} ${path}`,
        );
      }
    }
  }
  assert.ok(made > 100);
});
