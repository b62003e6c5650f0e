// One application in every framework, and what all of them answer.

import assert from "node:assert/strict";
import type { AddressInfo, Server } from "node:net";
import type { TestContext } from "node:test";
import { inspect } from "node:util";

import type { Express } from "express";

import { Routes } from "../src/index.js";
import { type Answerer, CANARY, type Received, send } from "./kit.js";

/** What was let pass: method, path and user. */
export type Passed = string[];

/** A server of a framework. */
export interface Web {
  readonly port: number;
  readonly passed: Passed;
  readonly logged: string[];
}

/** `/own` is guarded by its handlers, and everything else by the map. */
export const ROUTES = new Routes({
  "GET /courses/{id}": { permission: "course:allowed", resource: "course/{id}" },
  "/admin/**": "admin:access",
  "/staff/**": "staff:allowed",
  "GET /healthz": "public",
  "/own/**": "public",
});

const BEARER = "Authorization: Bearer a.b.c\r\n";
export const withToken = (line: string): string => `${line} HTTP/1.1\r\n${BEARER}`;

/** The port of a server, which ends with the test. */
export async function portOf(t: TestContext, server: Server): Promise<number> {
  t.after(() => server.close());
  if (!server.listening) await new Promise((resolve) => server.once("listening", resolve));
  return (server.address() as AddressInfo).port;
}

/** Serves an application of Express until the test ends. */
export function listening(t: TestContext, app: Express): Promise<number> {
  return portOf(t, app.listen(0, "127.0.0.1"));
}

/** Whether it is that refusal, and nothing passed. */
function isRefusal(web: Web, received: Received, status: number, body: object, what: string): void {
  assert.equal(received.status, status, `${what} ${inspect(received)}`);
  assert.deepEqual(JSON.parse(received.body), body, what);
  assert.equal(received.headers.get("content-type"), "application/json", what);
  assert.equal(received.headers.get("cache-control"), "no-store", what);
  assert.equal(received.headers.get("www-authenticate"), status === 401 ? "Bearer" : undefined, what);
  assert.equal(received.headers.get("retry-after"), status === 503 ? "1" : undefined, what);
  assert.deepEqual(web.passed, [], what);
}

const UNAUTHENTICATED = { error: "unauthenticated", decision_id: "decision-2" };
const FORBIDDEN = { error: "forbidden", decision_id: "decision-2" };
const NO_ROUTE = { error: "forbidden" };

/** Who may passes as the verified actor, and nobody else; `pdp` answers by `byPermission`. */
export async function judgesByTheMap(web: Web, pdp: Answerer): Promise<void> {
  const pass = async (head: string, passed: string) => {
    web.passed.length = 0;
    const received = await send(web.port, head);
    assert.equal(received.status, 200, `${head} ${inspect(received)}`);
    assert.deepEqual(web.passed.splice(0), [passed]);
  };
  await pass(withToken("GET /courses/algebra?x=//../"), "GET /courses/algebra user_ada");
  await pass("GET /courses/algebra HTTP/1.1\r\nCookie: a=1; __session=a.b.c\r\n", "GET /courses/algebra user_ada");
  await pass(withToken("HEAD /courses/algebra"), "HEAD /courses/algebra user_ada");
  await pass(withToken("POST /staff/x/y/"), "POST /staff/x/y/ user_ada");
  await pass("GET /healthz", "GET /healthz null");
  await pass(withToken("GET /healthz"), "GET /healthz null");
  pdp.requests.length = 0;
  await pass(withToken("GET /courses/%C3%A9t%C3%A9%201"), "GET /courses/%C3%A9t%C3%A9%201 user_ada");
  assert.deepEqual(
    pdp.requests.map((one) => [one.actorToken, one.resource?.id]),
    [["a.b.c", "été 1"]],
  );

  const refusals: [string, number, object][] = [
    ["GET /courses/algebra", 401, UNAUTHENTICATED],
    [
      "GET /courses/algebra HTTP/1.1\r\nX-User-Id: user_ada\r\nX-Forwarded-Authorization: Bearer a.b.c\r\n",
      401,
      UNAUTHENTICATED,
    ],
    [`GET /courses/algebra HTTP/1.1\r\n${BEARER}authorization: Bearer a.b.c\r\n`, 401, UNAUTHENTICATED],
    [
      `GET /courses/algebra HTTP/1.1\r\nAuthorization: Basic dTpw\r\n${BEARER}Cookie: __session=a.b.c\r\n`,
      401,
      UNAUTHENTICATED,
    ],
    ["GET /courses/algebra HTTP/1.1\r\nAuthorization: Bearer\r\nCookie: __session=a.b.c\r\n", 401, UNAUTHENTICATED],
    [
      "GET /courses/algebra HTTP/1.1\r\nCookie: __session=a.b.c\r\nCookie: __session=a.b.c\r\n",
      401,
      UNAUTHENTICATED,
    ],
    [withToken("GET /admin/x"), 403, FORBIDDEN],
    [withToken("DELETE /admin"), 403, FORBIDDEN],
    [`GET /admin/x HTTP/1.1\r\n${BEARER}X-Original-URL: /healthz\r\nX-Rewrite-URL: /healthz\r\n`, 403, FORBIDDEN],
    [`POST /admin/x HTTP/1.1\r\n${BEARER}X-HTTP-Method-Override: GET\r\n`, 403, FORBIDDEN],
    [withToken("DELETE /courses/algebra"), 403, NO_ROUTE],
    [withToken("POST /healthz"), 403, NO_ROUTE],
    [withToken("GET /"), 403, NO_ROUTE],
    [withToken("GET /healthz/"), 403, NO_ROUTE],
  ];
  for (const [head, status, body] of refusals) isRefusal(web, await send(web.port, head), status, body, head);
  const { status, body } = await send(web.port, "HEAD /courses/algebra");
  assert.deepEqual([status, body, web.passed], [401, "", []]);
}

const TRICKS = [
  "//healthz //admin/x /admin//x /// /./healthz /x/../healthz /courses/../healthz /courses/%2e%2e/healthz",
  "/courses/%2e /courses/..;/x /own%2F..%2Fadmin/x /own/%2e%2e/admin/x /own/..%2Fadmin /own/..%5Cadmin /own/..",
  "/own/../admin/x /own/./../admin/x /own//../admin/x /own/x/%2E%2E/%2e%2e/admin/x /healthz%2F /%68ealthz /HEALTHZ",
  "/healthz%00 /healthz%20 /healthz;x=1 /healthz%3B /healthz%3Fx /healthz#x /healthz%23x /%2Fhealthz /%252Fx /Admin/x",
  "/Own/../admin /%61dmin/x /admin%2Fx /admin%5Cx /admin\\x /\\admin/x /own\\..\\admin\\x /courses/a%2Fadmin",
  "/courses/algebra%2F /courses/alg%ff /courses/%C0%AF /courses/a%252F /courses/%zz /courses/% http://localhost/healthz",
  "http://localhost/admin/x http://localhost//admin/x healthz * //localhost/admin/x /?/../admin /courses/\xe9",
  "/courses/a\tb /own/..%c0%af../admin /STAFF/x /staff%2f/x /staff/..%252fx /courses/a%3fb",
]
  .join(" ")
  .split(" ");

/** No trick of a path comes to a handler. Some of these a server refuses by itself. */
export async function refusesTricks(web: Web): Promise<void> {
  for (const path of TRICKS) {
    for (const method of ["GET", "POST", "OPTIONS", "HEAD", "get", "TRACE"]) {
      // In a map in which everything else is public these would be other paths; see `everythingElseIsPublic`.
      const received = await send(web.port, withToken(`${method} ${path}`));
      const what = `${method} ${path} ${inspect(received)} ${web.passed}`;
      assert.deepEqual(web.passed, [], what);
      assert.ok([400, 403, 404, 500].includes(received.status), what);
    }
  }
}

/** No way of writing `/admin` comes to its handler where the map says that all other paths are public. */
export async function guardsAmongThePublic(web: Web): Promise<void> {
  const ways = [
    "/admin /admin/ /admin/x //admin/x /x/../admin/x /x/..//admin/x /./admin/x /%2e/admin/x /x/%2e%2e/admin/x /%61dmin/x",
    "/Admin/x /ADMIN /admin;x/y /admin%2fx /x%2f..%2fadmin/x /admin\\x /\\admin/x /admin%5cx /admin%00/x /admin%20/x",
    "/adm%69n/ http://localhost/admin/x http://localhost//admin/x //localhost/admin/x /admin#x /admin%23 /%2561dmin/x",
    "/admin/../admin/x /admin?/../x /admin?x /adm\xc4\xb1n/x /admin/%2e%2e/admin /admin/.. /admin%09/x ///admin /admin//",
  ]
    .join(" ")
    .split(" ");
  for (const path of ways) {
    for (const method of ["GET", "HEAD", "POST", "DELETE", "OPTIONS", "get"]) {
      const received = await send(web.port, withToken(`${method} ${path}`));
      assert.deepEqual(
        web.passed.filter((one) => one.startsWith("admin")),
        [],
        `${method} ${path} ${inspect(received)}`,
      );
      web.passed.length = 0;
    }
  }
  assert.equal((await send(web.port, "GET /other")).status, 200);
  assert.deepEqual(web.passed.splice(0), ["other"]);
}

/** What handlers ask by themselves. */
export async function guardsHandlers(web: Web, pdp: Answerer): Promise<void> {
  pdp.requests.length = 0;
  for (const [path, body] of [
    ["/own/edit/1", "user_ada"],
    ["/own/bound/1", "user_ada"],
    ["/own/list", "user_ada"],
  ]) {
    const received = await send(web.port, withToken(`PUT ${path}`));
    assert.deepEqual([received.status, received.body], [200, body], `${path} ${inspect(received)}`);
  }
  assert.deepEqual(
    pdp.requests.map((one) => one.resource?.id),
    ["1", "1", undefined],
  );
  web.passed.length = 0;
  isRefusal(web, await send(web.port, "PUT /own/edit/1"), 401, UNAUTHENTICATED, "edit");
  isRefusal(web, await send(web.port, "PUT /own/bound/1"), 401, UNAUTHENTICATED, "bound");
  isRefusal(web, await send(web.port, withToken("PUT /own/delete/1")), 403, FORBIDDEN, "delete");
  isRefusal(web, await send(web.port, withToken("PUT /own/thrown/1")), 403, FORBIDDEN, "thrown");
  // Mistakes of the application are the framework's, and let nobody pass.
  pdp.requests.length = 0;
  for (const path of ["/own/absent/undefined", "/own/absent/null", "/own/broken", "/own/error"]) {
    const received = await send(web.port, withToken(`PUT ${path}`));
    assert.equal(received.status, 500, `${path} ${inspect(received)}`);
    assert.ok(!received.body.includes('"error"'), path);
  }
  assert.deepEqual([web.passed, pdp.requests], [[], []]);
}

/** Without an answer nobody passes but the public, and the log says why. */
export async function refusesWithoutAnAnswer(web: Web): Promise<void> {
  isRefusal(web, await send(web.port, withToken("GET /courses/1")), 503, { error: "unavailable" }, "map");
  isRefusal(web, await send(web.port, withToken("PUT /own/edit/1")), 503, { error: "unavailable" }, "protect");
  isRefusal(web, await send(web.port, withToken("PUT /own/thrown/1")), 503, { error: "unavailable" }, "handler");
  assert.equal((await send(web.port, "GET /healthz")).status, 200);
  web.passed.length = 0;
  const asked = ["GET /courses/1", "PUT /own/edit/1", "PUT /own/thrown/1"];
  assert.equal(web.logged.length, asked.length);
  for (const [nth, request] of asked.entries()) {
    assert.match(web.logged[nth] as string, /^no decision: UNAVAILABLE /);
    assert.ok(web.logged[nth]?.endsWith(` (${request})`), web.logged[nth]);
  }
  assert.ok(!web.logged.join().includes("a.b.c"));
}

/** A refusal by the map is one line of the log, which holds what a stranger sent in a form that does no harm. */
export async function logsRefusals(web: Web): Promise<void> {
  web.logged.length = 0;
  for (const head of [
    "GET /nowhere?token=secret",
    "DELETE /courses/1",
    `GET /healthz;jsessionid=secret`,
    "GET /x%3Ftoken=secret",
    `GET /reset/${CANARY}`,
    "GET http://user:secret@localhost/healthz",
    "GET /a%0d%0ab",
    `GET /${"x".repeat(1_000)}`,
  ]) {
    assert.equal((await send(web.port, withToken(head))).status, 403, head);
  }
  assert.deepEqual(web.logged.splice(0), [
    "route refused: no_route (GET /nowhere)",
    "route refused: no_route (DELETE /courses/1)",
    "route refused: ambiguous_path (GET /healthz)",
    "route refused: ambiguous_path (GET /x)",
    "route refused: no_route (GET /reset/<token>)",
    "route refused: ambiguous_path (GET <no path>)",
    "route refused: ambiguous_path (GET /a%0d%0ab)",
    `route refused: no_route (GET /${"x".repeat(499)}...)`,
  ]);
  // Denials are in the audit log of the PDP.
  await send(web.port, withToken("GET /admin/x"));
  await send(web.port, "GET /courses/1");
  assert.deepEqual(web.logged, []);
}

const PREFLIGHT = "Origin: https://front.example\r\nAccess-Control-Request-Method: PUT\r\n";

/**
 * Below `/api` a CORS layer comes before the guard, and below `/wrong` behind it; `/api` and `/own` have handlers of
 * the application for GET and for OPTIONS.
 */
export async function guardsBehindCors(web: Web): Promise<void> {
  const asking = (path: string, headers: string) => send(web.port, `OPTIONS ${path} HTTP/1.1\r\n${headers}`);
  const preflight = await asking("/api/courses/1", PREFLIGHT);
  assert.equal(preflight.status, 204);
  assert.equal(preflight.headers.get("access-control-allow-origin"), "https://front.example");
  assert.match(preflight.headers.get("access-control-allow-methods") ?? "", /PUT/);
  assert.deepEqual(web.passed.splice(0), []);
  // A browser shows an answer to its front end only with this header, refusals too.
  for (const [head, status] of [
    ["GET /api/courses/1 HTTP/1.1\r\n", 401],
    [withToken("GET /api/admin"), 403],
    [withToken("GET /api/courses/1"), 200],
  ] as const) {
    const received = await send(web.port, `${head}Origin: https://front.example\r\n`);
    assert.equal(received.status, status, head);
    assert.equal(received.headers.get("access-control-allow-origin"), "https://front.example", head);
  }
  assert.deepEqual(web.passed.splice(0), ["GET"]);
  // No header makes an OPTIONS handler of the application public.
  for (const headers of ["", PREFLIGHT]) {
    for (const path of ["/own", "/wrong/courses/1"]) {
      const received = await asking(path, headers);
      assert.equal(received.status, 401, `${path} ${headers}`);
      assert.deepEqual(web.passed, []);
    }
    const { status } = await asking("/own", `${BEARER}${headers}`);
    assert.equal(status, 200);
    assert.deepEqual(web.passed.splice(0), ["OPTIONS"]);
  }
}

export const CORS_ROUTES = new Routes({
  "/api/courses/{id}": "course:allowed",
  "/api/admin": "admin:access",
  "/own": "course:allowed",
  "/wrong/**": "course:allowed",
});
