import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";

import { NextRequest } from "next/server.js";

import { type Guard, type Resource, Routes, Token } from "../src/index.js";
import { NextGuard, type NextGuardOptions } from "../src/next.js";
import { CoarseFilter } from "../src/next-proxy.js";
import { type Answerer, answering, byPermission, guarding } from "./kit.js";

const BEARER = { Authorization: "Bearer a.b.c" };
const course = ({ id }: { id: string }): Resource => ({ type: "course", id });
const context = { params: Promise.resolve({ id: "algebra" }) };

function request(path: string, headers: Record<string, string> = BEARER, init: object = {}): NextRequest {
  return new NextRequest(`https://courses.example${path}`, { headers, ...init });
}

interface Made {
  readonly guard: Guard;
  readonly pdp: Answerer;
  readonly next: NextGuard;
  readonly logged: string[];
}

async function made(t: TestContext, options: NextGuardOptions = {}): Promise<Made> {
  const pdp = await answering(t, byPermission);
  const guard = guarding(t, pdp.address);
  const logged: string[] = [];
  return { guard, pdp, logged, next: new NextGuard(guard, { log: (text) => logged.push(text), ...options }) };
}

async function isRefusal(answer: Response | undefined, status: number, body: object): Promise<void> {
  assert.ok(answer);
  assert.equal(answer.status, status);
  assert.deepEqual(await answer.json(), body);
  assert.equal(answer.headers.get("content-type"), "application/json");
  assert.equal(answer.headers.get("cache-control"), "no-store");
  assert.equal(answer.headers.get("www-authenticate"), status === 401 ? "Bearer" : null);
  assert.equal(answer.headers.get("retry-after"), status === 503 ? "1" : null);
}

const UNAUTHENTICATED = { error: "unauthenticated", decision_id: "decision-2" };
const FORBIDDEN = { error: "forbidden", decision_id: "decision-2" };

// --- handlers -----------------------------------------------------------------------------------

test("a handler is called with the verified actor, and asks about the resource of its path", async (t) => {
  const { next, pdp } = await made(t);
  const handler = next.withGuard("course:allowed", course, async (received, { params, actor }) =>
    Response.json([received.method, (await params).id, actor.userId]),
  );
  for (const headers of [BEARER, { Cookie: "a=1; __session=a.b.c" }]) {
    const answer = await handler(request("/courses/algebra", headers, { method: "PUT" }), context);
    assert.deepEqual(await answer.json(), ["PUT", "algebra", "user_ada"]);
  }
  assert.deepEqual(
    pdp.requests.map((one) => [one.actorToken, one.permission, one.resource?.type, one.resource?.id]),
    Array(2).fill(["a.b.c", "course:allowed", "course", "algebra"]),
  );
});

test("a resource may be found in the request, and later", async (t) => {
  const { next, pdp } = await made(t);
  const found = async (_: object, received: NextRequest) =>
    course((await received.clone().json()) as { id: string });
  const handler = next.withGuard("course:allowed", found, async (received) => Response.json(await received.json()));
  const sent = { id: "biology" };
  const answer = await handler(request("/", BEARER, { method: "POST", body: JSON.stringify(sent) }), context);
  assert.deepEqual(await answer.json(), sent);
  assert.equal(pdp.requests[0]?.resource?.id, "biology");
});

test("who may not is answered, and the handler is not called", async (t) => {
  const { next, guard, logged } = await made(t);
  let calls = 0;
  const handle = () => {
    calls++;
    return new Response();
  };
  await isRefusal(
    await next.withGuard("course:allowed", course, handle)(request("/", {}), context),
    401,
    UNAUTHENTICATED,
  );
  await isRefusal(await next.withGuard("course:delete", course, handle)(request("/"), context), 403, FORBIDDEN);
  const handler = next.withGuard("course:allowed", course, handle);
  guard.close();
  await isRefusal(await handler(request("/"), context), 503, { error: "unavailable" });
  assert.equal(calls, 0);
  assert.deepEqual(logged, ["no decision: the guard is closed (GET /)"]);
});

test("what a handler asks by itself is answered too, and its other errors are Next.js's", async (t) => {
  const { next, guard } = await made(t);
  const asks = next.withGuard("course:allowed", null, async (received) => {
    await guard.of(received).require("course:delete");
    return new Response();
  });
  await isRefusal(await asks(request("/"), context), 403, FORBIDDEN);
  const fails = next.withGuard("course:allowed", null, () => {
    throw new RangeError("of the application");
  });
  await assert.rejects(fails(request("/"), context), RangeError);
});

test("no question is asked without its resource", async (t) => {
  const { next, pdp } = await made(t);
  let calls = 0;
  const handle = () => {
    calls++;
    return new Response();
  };
  for (const none of [null, undefined, "algebra", 1, {}, { type: "course" }, { type: "course", id: ["algebra"] }]) {
    const handler = next.withGuard("course:allowed", (() => none) as unknown as () => Resource, handle);
    await assert.rejects(handler(request("/"), context), TypeError, `${none}`);
  }
  for (const none of [undefined, "course", { type: "course", id: "algebra" }, true]) {
    assert.throws(() => next.withGuard("course:allowed", none as unknown as null, handle), TypeError, `${none}`);
    assert.throws(
      () => next.withGuardAction("course:allowed", none as unknown as null, handle),
      TypeError,
      `${none}`,
    );
  }
  assert.deepEqual([calls, pdp.requests], [0, []]);
});

test("the token may come from somewhere else, and then from nowhere else", async (t) => {
  let token: string | Token = "";
  const { next, pdp } = await made(t, { token: async () => token });
  const handler = next.withGuard("course:allowed", null, () => new Response());
  await isRefusal(await handler(request("/"), context), 401, UNAUTHENTICATED);
  token = new Token("d.e.f");
  assert.equal((await handler(request("/"), context)).status, 200);
  assert.equal(pdp.requests.at(-1)?.actorToken, "d.e.f");
});

// --- the proxy ----------------------------------------------------------------------------------

const ROUTES = new Routes({
  "/**": "public",
  "/courses/{id}": { permission: "course:allowed", resource: "course/{id}" },
  "/admin/**": "admin:access",
  "POST /admin/login": "public",
});

test("the filter lets pass what the map lets pass", async (t) => {
  const { guard, pdp } = await made(t);
  const filter = new CoarseFilter(guard, ROUTES, () => {});
  for (const path of ["/", "/x?y=/admin", "/_next/static/chunks/a.js", "/admins", "/segments/x"]) {
    assert.equal(await filter.refusal(request(path, {})), undefined, path);
  }
  assert.equal(await filter.refusal(request("/admin/login", {}, { method: "POST" })), undefined);
  assert.equal(pdp.requests.length, 0);
  assert.equal(await filter.refusal(request("/courses/%C3%A9t%C3%A9")), undefined);
  assert.deepEqual([pdp.requests[0]?.resource?.id, pdp.requests[0]?.actorToken], ["été", "a.b.c"]);
  await isRefusal(await filter.refusal(request("/courses/algebra", {})), 401, UNAUTHENTICATED);
  await isRefusal(await filter.refusal(request("/admin")), 403, FORBIDDEN);
  await isRefusal(await filter.refusal(request("/admin/login")), 403, FORBIDDEN);
  await isRefusal(await filter.refusal(request("/admin/x/y")), 403, FORBIDDEN);
});

test("the filter finds the path within basePath and locale, as Next.js does", async (t) => {
  const { guard } = await made(t);
  const filter = new CoarseFilter(guard, ROUTES, () => {});
  const nextConfig = { basePath: "/school", i18n: { locales: ["en", "fr"], defaultLocale: "en" } };
  for (const path of ["/school/admin", "/school/fr/admin", "/school/en/admin/x", "/admin", "/fr/admin"]) {
    await isRefusal(await filter.refusal(request(path, BEARER, { nextConfig })), 403, FORBIDDEN);
  }
  for (const path of ["/fr/school/fr/admin", "/fr/school/FR/admin", "/FR/school/x/fr"]) {
    const answer = await filter.refusal(request(path, BEARER, { nextConfig }));
    await isRefusal(answer, 403, { error: "forbidden" });
  }
});

test("with trailingSlash the filter sees the slash, and a route with ** takes both forms", async (t) => {
  const { guard } = await made(t);
  const routes = new Routes({ "/admin/**": "admin:access", "/open/": "public", "/closed": "public" });
  const filter = new CoarseFilter(guard, routes, () => {});
  const nextConfig = { trailingSlash: true };
  for (const path of ["/admin", "/admin/", "/admin/x/"]) {
    await isRefusal(await filter.refusal(request(path, BEARER, { nextConfig })), 403, FORBIDDEN);
  }
  assert.equal(await filter.refusal(request("/open/", {}, { nextConfig })), undefined);
  await isRefusal(await filter.refusal(request("/closed/", {}, { nextConfig })), 403, { error: "forbidden" });
});

test("the filter refuses what could be another path", async (t) => {
  const { guard, pdp } = await made(t);
  const filter = new CoarseFilter(guard, ROUTES, () => {});
  const paths =
    "/ADMIN /%61dmin /admin;x /%2fadmin //x /x%2f..%2fadmin /courses/a%2fb /x.segments/_tree.segment".split(" ");
  for (const path of [...paths, "/_next/data/build/admin.json", "/_next/data/build/healthz.json", "/X.SEGMENTS"]) {
    await isRefusal(await filter.refusal(request(path)), 403, { error: "forbidden" });
  }
  await isRefusal(await filter.refusal(request("/x", { ...BEARER, "x-nextjs-data": "1" })), 403, {
    error: "forbidden",
  });
  const logged: string[] = [];
  const named = new CoarseFilter(guard, new Routes({ "/x": "public" }), (text) => logged.push(text));
  await isRefusal(await named.refusal(request("/y?x=secret")), 403, { error: "forbidden" });
  assert.deepEqual(logged, ["route refused: no_route (GET /y)"]);
  assert.deepEqual(pdp.requests, []);
});

test("the filter lets nobody pass without an answer, and takes a token from elsewhere", async (t) => {
  const { guard, pdp } = await made(t);
  const logged: string[] = [];
  const filter = new CoarseFilter(guard, ROUTES, (text) => logged.push(text));
  assert.equal(await filter.refusal(request("/courses/algebra", {}), () => "d.e.f"), undefined);
  assert.equal(pdp.requests[0]?.actorToken, "d.e.f");
  await isRefusal(await filter.refusal(request("/courses/algebra"), async () => ""), 401, UNAUTHENTICATED);
  guard.close();
  await isRefusal(await filter.refusal(request("/courses/algebra")), 503, { error: "unavailable" });
  assert.equal(await filter.refusal(request("/")), undefined);
  assert.deepEqual(logged, ["no decision: the guard is closed (GET /courses/algebra)"]);
  const failing = () => Promise.reject(new RangeError("of the application"));
  await assert.rejects(filter.refusal(request("/admin"), failing), RangeError);
});
