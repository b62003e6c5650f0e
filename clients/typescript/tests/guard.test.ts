import assert from "node:assert/strict";
import { test } from "node:test";
import { format, inspect } from "node:util";

import { create, toJson } from "@bufbuild/protobuf";
import { TimestampSchema, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { status } from "@grpc/grpc-js";

import { Guard, type GuardError, PdpRefused, PdpUnavailable, RequestGuard, Token } from "../src/index.js";
import { CheckRequestSchema } from "../src/pdpapi/v1/decision_service_pb.js";
import { allow, answering, CANARY, failing, guarding } from "./kit.js";

const COURSE = { type: "course", id: "1" };

test("require gives the actor of an allow", async (t) => {
  const guard = guarding(t, (await answering(t, () => allow)).address);
  const actor = await guard.require("a.b.c", "course:edit", COURSE);
  assert.deepEqual(actor, {
    userId: "user_ada",
    sessionId: "sess_1",
    organizationId: null,
    impersonatorId: null,
  });
  assert.ok(Object.isFrozen(actor));
});

test("everything that was asked is sent", async (t) => {
  const server = await answering(t, () => allow);
  const guard = guarding(t, server.address);
  const course = {
    ...COURSE,
    organizationId: "org_1",
    parent: { type: "school", id: "2" },
    attributes: { seats: 3, tags: ["a"] },
  };
  await guard.check("a.b.c", "course:edit", course, { ip: "192.0.2.1" }, { atLeastRevision: 2n ** 64n - 1n });
  assert.deepEqual(
    server.requests.map((one) => toJson(CheckRequestSchema, one)),
    [
      {
        actorToken: "a.b.c",
        permission: "course:edit",
        resource: course,
        context: { ip: "192.0.2.1" },
        atLeastRevision: "18446744073709551615",
      },
    ],
  );
});

test("a decision tells what the PDP told, and can be printed as JSON", async (t) => {
  const until = new Date("2026-01-02T03:04:05.678Z");
  const server = await answering(t, () => ({
    ...allow,
    message: "A rule allows it.",
    ruleId: "rule",
    grantId: "grant",
    revision: 2n ** 60n,
    reusableUntil: timestampFromMs(until.getTime()),
  }));
  const decision = await guarding(t, server.address).check("a.b.c", "course:edit", COURSE);
  assert.deepEqual(JSON.parse(JSON.stringify(decision)), {
    allowed: true,
    reason: "ALLOWED_BY_RULE",
    message: "A rule allows it.",
    denialKind: null,
    actor: { userId: "user_ada", sessionId: "sess_1", organizationId: null, impersonatorId: null },
    decisionId: "decision-1",
    ruleId: "rule",
    grantId: "grant",
    revision: "1152921504606846976",
    reusableUntil: until.toISOString(),
    source: "decided",
    stepUp: null,
  });
  assert.equal(decision.revision, 2n ** 60n);
  assert.ok(Object.isFrozen(decision));
});

test("a time that is none is no answer", async (t) => {
  for (const until of [
    { seconds: 253_402_300_800n },
    { seconds: -62_135_596_801n },
    { nanos: 1_000_000_000 },
    { nanos: -1 },
  ]) {
    const server = await answering(t, () => ({ ...allow, reusableUntil: create(TimestampSchema, until) }));
    await assert.rejects(guarding(t, server.address).require("a.b.c", "a:b"), PdpUnavailable);
  }
});

test("a call ends within its deadline, which is 250 ms where none is set", async (t) => {
  const server = await answering(t, () => new Promise(() => {}));
  for (const guard of [guarding(t, server.address, { deadlineMs: 100 }), new Guard(server.address)]) {
    t.after(() => guard.close());
    const began = performance.now();
    await assert.rejects(guard.require("a.b.c", "a:b"), { name: "PdpUnavailable", code: "DEADLINE_EXCEEDED" });
    assert.ok(performance.now() - began < 2_000);
  }
});

test("without an API key no credential is sent, and with one only that of the caller", async (t) => {
  const server = await answering(t, () => allow);
  await guarding(t, server.address).check("a.b.c", "a:b");
  const guard = guarding(t, server.address, { apiKey: "key-of-this-caller" });
  await guard.check("a.b.c", "a:b");
  await guard.check("a.b.c", "a:b");
  const sent = server.metadata.map((one) => one.get("authorization"));
  assert.deepEqual(sent, [[], ["Bearer key-of-this-caller"], ["Bearer key-of-this-caller"]]);
});

test("a guard that is closed says at once that there is no answer", async (t) => {
  const guard = guarding(t, (await answering(t, () => allow)).address, { deadlineMs: 60_000 });
  guard.close();
  guard.close();
  await assert.rejects(guard.require("a.b.c", "a:b"), PdpUnavailable);
  await assert.rejects(guard.can("a.b.c", [{ permission: "a:b" }]), PdpUnavailable);
});

test("closing ends a call that is asked again and again", async (t) => {
  let calls = 0;
  const server = await answering(t, () => {
    if (++calls === 3) guard.close();
    return failing(status.UNAVAILABLE, "later");
  });
  const guard = guarding(t, server.address, { deadlineMs: 60_000 });
  await assert.rejects(guard.require("a.b.c", "a:b"), PdpUnavailable);
  assert.equal(calls, 3);
});

test("closing ends a call that waits for its answer", async (t) => {
  const server = await answering(t, () => {
    guard.close();
    return new Promise(() => {});
  });
  const guard = guarding(t, server.address, { deadlineMs: 60_000 });
  const began = performance.now();
  await assert.rejects(guard.require("a.b.c", "a:b"), PdpUnavailable);
  assert.ok(performance.now() - began < 5_000);
});

test("where asking again runs out of time, why it was asked again is told", async (t) => {
  let calls = 0;
  const server = await answering(t, () => {
    calls++;
    return calls === 1 ? failing(status.UNAVAILABLE, "stale") : new Promise(() => {});
  });
  const asked = guarding(t, server.address, { deadlineMs: 1_500 }).require("a.b.c", "a:b");
  await assert.rejects(asked, { code: "UNAVAILABLE", message: "UNAVAILABLE stale" });
  assert.equal(calls, 2);
});

test("a guard serves many at once, and none gets the answer of another", async (t) => {
  const server = await answering(t, (request) => ({
    ...allow,
    actor: { userId: request.actorToken, sessionId: "s" },
  }));
  const guard = guarding(t, server.address);
  const users = Array.from({ length: 200 }, (_, number) => `user_${number}`);
  const actors = await Promise.all(users.map((user) => guard.require(user, "a:b")));
  assert.deepEqual(
    actors.map((one) => one.userId),
    users,
  );
});

/** Everything that printing an error may show. */
function shownOf(error: unknown): string {
  const parts = [String(error), (error as Error).stack, inspect(error, { showHidden: true, depth: 9 })];
  return [...parts, JSON.stringify(error), format("%o %O %j", error, error, error)].join("\n");
}

test("no error repeats the token", async (t) => {
  for (const code of [status.INVALID_ARGUMENT, status.INTERNAL, status.UNAVAILABLE]) {
    const server = await answering(t, ({ actorToken, permission }) =>
      failing(code, `no: ${actorToken}, ${permission}`),
    );
    const guard = guarding(t, server.address, { deadlineMs: 300 });
    for (const token of [CANARY, "an opaque token of another kind"]) {
      // The second time the token is passed where the permission belongs.
      for (const permission of ["a:b", CANARY]) {
        await assert.rejects(guard.require(token, permission), (error: GuardError) => {
          const shown = shownOf(error);
          assert.ok(!shown.includes(token) && !shown.includes(CANARY), shown);
          assert.equal(error.cause, undefined);
          return true;
        });
      }
    }
  }
});

test("a token shows nothing of itself", () => {
  const token = new Token(CANARY);
  const shown = [token, { token }, [token], new Map([[token, token]])].map(
    (one) =>
      `${inspect(one, { showHidden: true, depth: 9 })} ${JSON.stringify(one)} ${format("%s %o %j", one, one, one)}`,
  );
  assert.ok(!`${shown} ${token}`.includes(CANARY.slice(10, 30)), String(shown));
  assert.deepEqual(Object.keys(token), []);
  assert.equal(token.reveal(), CANARY);
});

test("a guard shows neither key nor token", async (t) => {
  const guard = guarding(t, "127.0.0.1:1", { apiKey: "key-of-this-caller", deadlineMs: 50 });
  const bound = new RequestGuard(guard, CANARY);
  const error = await bound.require("a:b").catch((thrown: unknown) => thrown);
  const shown = `${shownOf(error)} ${inspect([guard, bound], { showHidden: true, depth: 20 })} ${JSON.stringify([guard, bound])}`;
  assert.ok(error instanceof PdpUnavailable);
  assert.ok(!shown.includes("key-of-this-caller") && !shown.includes(CANARY), shown);
});

test("a token that is no text is asked about as none", async (t) => {
  const server = await answering(t, () => allow);
  const guard = guarding(t, server.address);
  for (const token of ["", "\ud800", new Token("a\udfff")]) await guard.check(token, "a:b");
  assert.deepEqual(
    server.requests.map((one) => one.actorToken),
    ["", "", ""],
  );
});

test("arguments of another type are refused, and nobody is asked", async (t) => {
  const server = await answering(t, () => allow);
  const guard = guarding(t, server.address);
  // As JavaScript may call it.
  const check = guard.check.bind(guard) as (...given: unknown[]) => Promise<unknown>;
  const batch = guard.batch.bind(guard) as (...given: unknown[]) => Promise<unknown>;
  const can = guard.can.bind(guard) as (...given: unknown[]) => Promise<unknown>;
  const role = guard.requireRole.bind(guard) as (...given: unknown[]) => Promise<unknown>;
  const wrong: [string, () => Promise<unknown>][] = [
    ["no token", () => check(undefined, "a:b")],
    ["a null token", () => check(null, "a:b")],
    ["a token that is a number", () => check(1, "a:b")],
    ["a token that is an object", () => check({ token: "a" }, "a:b")],
    ["no permission", () => check("t")],
    ["a permission that is a list", () => check("t", ["a:b"])],
    ["a permission that is no Unicode", () => check("t", "\ud800")],
    ["a resource that is undefined", () => check("t", "a:b", undefined)],
    ["a resource that is a string", () => check("t", "a:b", "course/1")],
    ["a resource that is a number", () => check("t", "a:b", 1)],
    ["a resource that is false", () => check("t", "a:b", false)],
    ["a resource that is an empty string", () => check("t", "a:b", "")],
    ["a resource without an id", () => check("t", "a:b", { type: "course" })],
    ["a resource without a type", () => check("t", "a:b", { id: "1" })],
    ["an id that is a number", () => check("t", "a:b", { type: "course", id: 1 })],
    ["an id that is a list", () => check("t", "a:b", { type: "course", id: ["1"] })],
    ["an id that is no Unicode", () => check("t", "a:b", { type: "course", id: "\ud800" })],
    ["an organization that is a number", () => check("t", "a:b", { ...COURSE, organizationId: 1 })],
    ["a parent without an id", () => check("t", "a:b", { ...COURSE, parent: { type: "school" } })],
    ["a parent that is a string", () => check("t", "a:b", { ...COURSE, parent: "school" })],
    ["attributes that are a list", () => check("t", "a:b", { ...COURSE, attributes: [] })],
    ["a context that is a string", () => check("t", "a:b", null, "x")],
    ["a context that is a Map", () => check("t", "a:b", null, new Map())],
    ["a revision that is a text", () => check("t", "a:b", null, null, { atLeastRevision: "7" })],
    ["a revision that is not exact", () => check("t", "a:b", null, null, { atLeastRevision: 2 ** 53 })],
    ["a revision below 0", () => check("t", "a:b", null, null, { atLeastRevision: -1 })],
    ["a revision that is too large", () => check("t", "a:b", null, null, { atLeastRevision: 2n ** 64n })],
    ["an option that is not one", () => check("t", "a:b", null, null, { revision: 7 })],
    ["an option of a batch that is not one", () => batch("t", [{ permission: "a:b" }], { atLeast: 7 })],
    ["a role that is a list", () => role("t", ["admin"])],
    ["no questions", () => batch("t", [])],
    ["questions that are none", () => batch("t", undefined)],
    ["a question that is a string", () => batch("t", ["a:b"])],
    ["a question that is a hole", () => batch("t", Array(1))],
    [
      "a question of which the resource is undefined",
      () => batch("t", [{ permission: "a:b", resource: undefined }]),
    ],
    ["too many questions", () => batch("t", Array(1001).fill({ permission: "a:b" }))],
    ["a set for nobody", () => can(undefined, [{ permission: "a:b" }])],
    ["a set of a string", () => can("t", "ab")],
  ];
  for (const [name, ask] of wrong) {
    const error = await ask().then(
      () => null,
      (thrown: unknown) => thrown,
    );
    assert.ok(error instanceof TypeError || error instanceof RangeError, `${name}: ${inspect(error)}`);
  }
  assert.equal(server.requests.length, 0);
});

test("a resource may be left out, or said to be none", async (t) => {
  const server = await answering(t, () => allow);
  const guard = guarding(t, server.address);
  await guard.require("t", "a:b");
  await guard.require("t", "a:b", null, { hour: 9 });
  assert.deepEqual(
    server.requests.map((one) => [one.resource, one.context]),
    [
      [undefined, undefined],
      [undefined, { hour: 9 }],
    ],
  );
});

test("a guard of a request asks with its token", async (t) => {
  const server = await answering(t, () => allow);
  const guard = guarding(t, server.address, { cookieName: "__session_x" });
  const request = new Request("http://localhost/", { headers: { Cookie: "__session=no; __session_x=a.b.c" } });
  const bound = guard.of(request);
  assert.equal((await bound.require("course:create", COURSE)).userId, "user_ada");
  assert.equal((await bound.check("course:create")).allowed, true);
  assert.equal((await bound.requireRole("admin")).userId, "user_ada");
  await assert.rejects((bound.require as (...given: unknown[]) => Promise<unknown>)("a:b", undefined), TypeError);
  assert.deepEqual(
    server.requests.map((one) => [one.actorToken, one.permission]),
    [
      ["a.b.c", "course:create"],
      ["a.b.c", "course:create"],
      ["a.b.c", "role:admin"],
    ],
  );
});

test("a status that nobody knows is no answer", async (t) => {
  const server = await answering(t, () => failing(77 as status, "?"));
  await assert.rejects(guarding(t, server.address).require("t", "a:b"), PdpUnavailable);
});

test("details that cannot be read change nothing", async (t) => {
  const server = await answering(t, () => {
    const failed = failing(status.INVALID_ARGUMENT, "no");
    failed.metadata?.set("grpc-status-details-bin", Buffer.from([0xff, 0xff]));
    return failed;
  });
  await assert.rejects(guarding(t, server.address).require("t", "a:b"), (error: PdpRefused) => {
    assert.ok(error instanceof PdpRefused);
    assert.deepEqual([error.code, error.reason, error.violations], ["INVALID_ARGUMENT", "", []]);
    return true;
  });
});
