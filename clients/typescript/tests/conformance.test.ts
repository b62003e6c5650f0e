// clients/conformance, whole.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { inspect } from "node:util";

import {
  type Actor,
  Decision,
  Denied,
  type Factor,
  Forbidden,
  Guard,
  GuardError,
  isNothing,
  PdpRefused,
  PdpUnavailable,
  PermissionSet,
  type PlanOptions,
  type Question,
  type Resource,
  RouteMapInvalid,
  RouteRefused,
  Routes,
  refusalOf,
  refuse,
  type StepUp,
  sessionToken,
  Unauthenticated,
} from "../src/index.js";
import type { Requirement } from "../src/routes.js";
import { cases, patient, type Servers, SKIP, startServers } from "./conformance-servers.js";
import { CANARY } from "./kit.js";

interface Expected {
  readonly outcome: string;
  readonly http_status: number;
  readonly decision_id?: string;
  readonly reason?: string;
  readonly code?: string;
  readonly calls?: number;
  readonly allowed?: boolean[];
  readonly permissions?: string[];
  readonly actor?: Readonly<Record<string, string>>;
  readonly violations?: unknown[];
  readonly step_up?: WrittenStepUp;
}

interface WrittenStepUp {
  readonly factor: Factor;
  readonly max_age_seconds: number;
}

function stepUpOf(written: WrittenStepUp | undefined): StepUp | null {
  return written ? { factor: written.factor, maxAgeSeconds: written.max_age_seconds } : null;
}

/** What came: the answer, or what was thrown. */
async function outcomeOf<T>(asked: Promise<T>): Promise<{ answer: T } | { error: GuardError }> {
  try {
    return { answer: await asked };
  } catch (error) {
    assert.ok(error instanceof GuardError, inspect(error));
    return { error };
  }
}

const OUTCOMES = new Map<unknown, string>([
  [Unauthenticated, "unauthenticated"],
  [Forbidden, "forbidden"],
  [PdpUnavailable, "unavailable"],
  [PdpRefused, "refused"],
]);

function compareError(error: GuardError, expected: Expected): void {
  assert.equal(OUTCOMES.get(error.constructor), expected.outcome, inspect(error));
  assert.equal(error.httpStatus, expected.http_status);
  const decision = error instanceof Denied ? error.decision : null;
  const failure = error as Partial<PdpRefused>;
  if (expected.decision_id !== undefined) assert.equal(decision?.decisionId, expected.decision_id);
  if (expected.reason !== undefined) assert.equal(decision?.reason ?? failure.reason, expected.reason);
  if (decision) assert.deepEqual(decision.stepUp, stepUpOf(expected.step_up));
  if (expected.code !== undefined) assert.equal(failure.code, expected.code);
  if (expected.violations !== undefined) assert.deepEqual(failure.violations, expected.violations);
  for (const shown of [
    String(error),
    error.stack,
    inspect(error, { showHidden: true, depth: 9 }),
    JSON.stringify(error),
  ]) {
    assert.ok(!shown?.includes(CANARY), "the token is in a text");
  }
}

function compareActor(actor: Actor, expected: Expected): void {
  assert.equal(expected.outcome, "allowed");
  if (expected.actor === undefined) return;
  assert.deepEqual(actor, {
    userId: expected.actor["user_id"],
    sessionId: expected.actor["session_id"] ?? "",
    organizationId: expected.actor["organization_id"] ?? null,
    impersonatorId: expected.actor["impersonator_id"] ?? null,
  });
}

function compareDecision(decision: Decision, expected: Expected): void {
  assert.equal(decision.allowed, true);
  if (expected.decision_id !== undefined) assert.equal(decision.decisionId, expected.decision_id);
  if (expected.reason !== undefined) assert.equal(decision.reason, expected.reason);
}

let servers: Servers;
if (!SKIP) {
  before(async () => {
    servers = await startServers();
  });
  after(() => servers.stop());
}

interface OutcomeCase {
  readonly name: string;
  readonly deadline_ms?: number;
  readonly questions?: number;
  readonly resources?: number;
  readonly expect: Expected;
}

describe("whatever a PDP answers, the outcome is the one of docs/guards.md", { skip: SKIP, concurrency: 8 }, () => {
  const { cases: all } = cases<{ cases: OutcomeCase[] }>("outcomes");
  assert.ok(all.length > 0);
  for (const { name, deadline_ms, questions, resources, expect } of all) {
    test(name, async (t) => {
      const guard = new Guard(servers.scripted, { deadlineMs: deadline_ms ?? 10_000 });
      t.after(() => guard.close());
      const permission = `case:${name}`;
      const context = { run: randomUUID() };
      let expected = expect;
      const ask = (): Promise<unknown> => {
        if (resources) return guard.permissions(CANARY, Array(resources).fill({ type: "case", id: name }), context);
        if (questions) return guard.batch(CANARY, Array(questions).fill({ permission, context }));
        return guard.require(CANARY, permission, null, context);
      };
      const came = await outcomeOf(ask());
      if ("error" in came) {
        const slow = deadline_ms !== undefined && (came.error as PdpUnavailable).code === "DEADLINE_EXCEEDED";
        if (slow) expected = { outcome: expect.outcome, http_status: expect.http_status };
        compareError(came.error, expected);
      } else if (came.answer instanceof PermissionSet) {
        assert.equal(expect.outcome, "answered");
        assert.deepEqual(
          came.answer.toJSON().map((one) => one.permission),
          expect.permissions,
        );
      } else if (Array.isArray(came.answer)) {
        assert.equal(expect.outcome, "answered");
        assert.deepEqual(
          came.answer.map((one) => one.allowed),
          expect.allowed,
        );
      } else {
        compareActor(came.answer as Actor, expect);
        // The answers are used up in order; to see the decision itself, it is asked about again.
        compareDecision(await guard.check(CANARY, permission, null, { run: randomUUID() }), expect);
      }
      if (expected.calls !== undefined) {
        const counting = patient(servers.scripted);
        t.after(() => counting.close());
        const counted = await counting.check(CANARY, `calls:${name}`, null, context);
        assert.equal(counted.revision, BigInt(expected.calls));
      }
    });
  }
});

interface WrittenResource extends Resource {
  readonly organization_id?: string;
}

interface WrittenQuestion {
  readonly permission: string;
  readonly resource?: WrittenResource;
}

function resourceOf(written: WrittenResource | undefined): Resource | null {
  if (written === undefined) return null;
  const { organization_id: organizationId, ...resource } = written;
  return { ...resource, organizationId };
}

interface DecisionCase extends WrittenQuestion {
  readonly name: string;
  readonly token: string;
  readonly context?: Record<string, number>;
  readonly expect: Expected;
}

interface CanCase {
  readonly name: string;
  readonly token: string;
  readonly questions: WrittenQuestion[];
  readonly holds: boolean[];
}

interface PermissionsCase {
  readonly name: string;
  readonly token: string;
  readonly resources: WrittenResource[];
  readonly context?: Record<string, number>;
  readonly holds: string[][];
}

describe("a real PDP is asked", { skip: SKIP }, () => {
  const suite = cases<{ cases: DecisionCase[]; can: CanCase[]; permissions: PermissionsCase[] }>("decisions");
  assert.ok(suite.cases.length > 0 && suite.can.length > 0 && suite.permissions.length > 0);
  let guard: Guard;
  before(() => {
    guard = patient(servers.pdp, { apiKey: servers.api_key });
  });
  after(() => guard.close());
  for (const { name, token: named, permission, resource: written, context, expect } of suite.cases) {
    const resource = resourceOf(written);
    test(name, async () => {
      const token = servers.tokens[named] as string;
      const asks = [() => guard.require(token, permission, resource, context)];
      if (permission.startsWith("role:")) {
        asks.push(() => guard.requireRole(token, permission.slice("role:".length)));
      }
      for (const ask of asks) {
        const came = await outcomeOf(ask());
        if ("error" in came) compareError(came.error, expect);
        else compareActor(came.answer, expect);
      }
      const checked = await outcomeOf(guard.check(token, permission, resource, context));
      if ("error" in checked) compareError(checked.error, expect);
      else if (expect.outcome === "allowed") compareDecision(checked.answer, expect);
      else assert.equal(checked.answer.allowed, false);
    });
  }
  for (const { name, token, questions: written, holds } of suite.can) {
    const questions: Question[] = written.map(({ permission, resource }) => ({
      permission,
      resource: resourceOf(resource),
    }));
    test(`can: ${name}`, async () => {
      const set = await guard.can(servers.tokens[token] as string, questions);
      const found = questions.map(({ permission, resource }) => set.holds(permission, resource));
      assert.deepEqual(found, holds);
      assert.equal(set.holds("course:never-asked"), false);
    });
  }
  for (const { name, token, resources: written, context, holds } of suite.permissions) {
    test(`permissions: ${name}`, async () => {
      const resources = written.map((one) => resourceOf(one) as Resource);
      const set = await guard.permissions(servers.tokens[token] as string, resources, context);
      const declared = ["course:delete", "course:edit", "course:view", "page:view", "admin:access"];
      const found = resources.map((one) => declared.filter((permission) => set.holds(permission, one)));
      assert.deepEqual(found, holds);
      assert.ok(!declared.some((permission) => set.holds(permission)));
    });
  }
  test("plan: a filter that reads actor and context, and nothing for a refused token", async () => {
    const plan = (token: string, permission: string, options?: PlanOptions) =>
      guard.plan(servers.tokens[token] as string, permission, "course", options);
    const written = JSON.stringify((await plan("instructor", "course:edit", { context: { hour: 9 } })).filter);
    assert.match(written, /"owner"/);
    assert.ok(isNothing(await plan("instructor", "course:edit", { context: { hour: 20 } })));
    assert.ok(isNothing(await guard.plan("not a token", "course:view", "course")));
    assert.ok(isNothing(await plan("student", "course:never-declared")));
    await assert.rejects(plan("student", "course:view", { superset: true } as PlanOptions), TypeError);
  });
  test("without the API key", async (t) => {
    const keyless = patient(servers.pdp);
    t.after(() => keyless.close());
    await assert.rejects(keyless.require(servers.tokens["admin"] as string, "admin:access"), {
      name: "PdpRefused",
      reason: "CALLER_UNAUTHENTICATED",
    });
  });
  test("by mTLS", async (t) => {
    const { target, ca, cert, key } = servers.tls;
    const secure = patient(target, { tls: { ca, cert, key }, apiKey: servers.api_key });
    t.after(() => secure.close());
    await secure.require("a.b.c", "case:allow");
  });
  test("a server without the service gives no answer", async (t) => {
    const lost = new Guard(new URL(servers.http).host, { deadlineMs: 1_000 });
    t.after(() => lost.close());
    await assert.rejects(lost.require("a.b.c", "a:b"), PdpRefused);
  });
});

interface TokenCase {
  readonly name: string;
  readonly headers: [string, string][];
  readonly cookie_name?: string;
  readonly token: string;
}

describe("the token of a request", () => {
  const suite = cases<{ cases: TokenCase[] }>("tokens");
  assert.ok(suite.cases.length > 0);
  for (const { name, headers, cookie_name, token } of suite.cases) {
    test(name, () => {
      for (const form of [headers, headers.flat()]) {
        assert.equal(sessionToken(form, cookie_name).reveal(), token);
      }
    });
  }
});

interface RoutesSuite {
  readonly maps: {
    readonly name: string;
    readonly routes: Record<string, Requirement>;
    readonly cases: { readonly method: string; readonly path: string; readonly expect: unknown }[];
  }[];
  readonly invalid: { readonly name: string; readonly routes: Record<string, Requirement> }[];
}

describe("a route map", () => {
  const suite = cases<RoutesSuite>("routes");
  assert.ok(suite.maps.length > 0 && suite.invalid.length > 0);
  for (const { name, routes, cases: all } of suite.maps) {
    test(name, () => {
      const made = new Routes(routes);
      for (const { method, path, expect } of all) {
        assert.deepEqual(matched(made, method, path), expect, `${method} ${path}`);
      }
    });
  }
  for (const { name, routes } of suite.invalid) {
    test(`is refused: ${name}`, () => {
      assert.throws(() => new Routes(routes), RouteMapInvalid);
    });
  }
});

function matched(routes: Routes, method: string, path: string): unknown {
  try {
    const asked = routes.match(method, path);
    if (asked === "public") return asked;
    const { permission, resource } = asked;
    return resource === null ? { permission } : { permission, resource };
  } catch (error) {
    assert.ok(error instanceof RouteRefused, inspect(error));
    return "refused";
  }
}

interface RefusalCase {
  readonly outcome: string;
  readonly step_up?: WrittenStepUp;
  readonly decision_id: string;
  readonly status: number;
  readonly grpc?: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: unknown;
}

describe("what a browser is answered", () => {
  const suite = cases<{ cases: RefusalCase[] }>("refusals");
  assert.ok(suite.cases.length > 0);
  for (const { outcome, step_up, decision_id, status, grpc, headers, body } of suite.cases) {
    test(step_up ? `${outcome}, ${step_up.factor}` : outcome, async () => {
      const decision = (allowed: boolean) =>
        new Decision({
          allowed,
          reason: "A_REASON",
          message: "A_REASON",
          denialKind: null,
          actor: null,
          decisionId: decision_id,
          ruleId: null,
          grantId: null,
          revision: 0n,
          reusableUntil: null,
          source: "decided",
          stepUp: stepUpOf(step_up),
        });
      const errors: Record<string, GuardError> = {
        unauthenticated: new Unauthenticated(decision(false)),
        forbidden: new Forbidden(decision(false)),
        unavailable: new PdpUnavailable("A_REASON", "INTERNAL", "A_REASON"),
        refused: new PdpRefused("A_REASON", "NOT_FOUND", "A_REASON"),
        route_refused: new RouteRefused("no_route"),
      };
      const error = errors[outcome] as GuardError;
      const refusal = refusalOf(error);
      assert.equal(refusal.status, status);
      assert.deepEqual(refusal.headers, headers);
      assert.deepEqual(JSON.parse(refusal.body), body);
      const response = refuse(error);
      assert.equal(response.status, status);
      for (const [name, value] of Object.entries(headers)) assert.equal(response.headers.get(name), value);
      assert.deepEqual(await response.json(), body);
      if (grpc !== undefined) assert.equal(error.grpcStatus, grpc);
    });
  }
});
