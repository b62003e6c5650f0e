// Against Clerk's own SDKs, by `jwtKey`: without a network.

import assert from "node:assert/strict";
import { generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import type { AddressInfo } from "node:net";
import { after, before, mock, test } from "node:test";

import { createClerkClient } from "@clerk/backend";
import { reverificationError } from "@clerk/backend/internal";
import { clerkMiddleware, getAuth } from "@clerk/express";
import type { auth } from "@clerk/nextjs/server";
import { validateReverificationConfig } from "@clerk/shared/authorization";
import { isReverificationHint } from "@clerk/shared/authorization-errors";
import express from "express";

import { type ClerkAuth, clerkToken } from "../src/clerk.js";
import { Decision, type Factor, Forbidden, type StepUp } from "../src/index.js";
import { refusalOf } from "../src/refusals.js";
import { CANARY, send } from "./kit.js";

const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const jwtKey = publicKey.export({ type: "spki", format: "pem" }).toString();
const publishableKey = `pk_live_${Buffer.from("clerk.example.test$").toString("base64")}`;
const secretKey = "sk_live_of_nobody";
const clerk = createClerkClient({ secretKey, publishableKey, jwtKey });
const COOKIES = { __client_uat: "1" };

/** A session token as Clerk makes it. */
function sessionToken(claims: Record<string, unknown> = {}, key: KeyObject = privateKey): string {
  const now = Math.floor(Date.now() / 1_000);
  const parts = [
    { alg: "RS256", typ: "JWT", kid: "ins_test", cat: "cl_B7d4PD111AAA" },
    {
      iss: "https://clerk.example.test",
      sub: "user_1",
      sid: "sess_1",
      azp: "https://app.example.test",
      sts: "active",
      v: 2,
      fva: [1, -1],
      iat: now - 1,
      nbf: now - 11,
      exp: now + 60,
      ...claims,
    },
  ].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url"));
  return `${parts.join(".")}.${sign("sha256", Buffer.from(parts.join(".")), key).toString("base64url")}`;
}

async function stateOf(headers: Record<string, string>): Promise<ClerkAuth | null> {
  const request = new Request("https://app.example.test/", { headers });
  return (await clerk.authenticateRequest(request)).toAuth();
}

let asked: ReturnType<typeof mock.method>;
before(() => {
  asked = mock.method(globalThis, "fetch", async () => {
    throw new Error("nobody is to be asked");
  });
});
after(() => assert.equal(asked.mock.callCount(), 0));

test("what @clerk/backend has verified gives the token of the request, and asks nobody", async () => {
  const token = sessionToken();
  const byHeader = await stateOf({ authorization: `Bearer ${token}` });
  assert.equal((await clerkToken(byHeader)).reveal(), token);
  const cookies = Object.entries({ ...COOKIES, __session: token }).map(([name, value]) => `${name}=${value}`);
  const byCookie = await stateOf({ cookie: cookies.join("; ") });
  assert.equal((await clerkToken(byCookie)).reveal(), token);
  for (const given of [Promise.resolve(byHeader), () => byHeader, async () => byHeader]) {
    assert.equal((await clerkToken(given)).reveal(), token);
  }
});

test("the session cookie with a suffix is found, of which Clerk knows the name", async () => {
  const token = sessionToken();
  const digest = await crypto.subtle.digest("sha-1", new TextEncoder().encode(publishableKey));
  const suffix = Buffer.from(digest).toString("base64").replaceAll("+", "-").replaceAll("/", "_").slice(0, 8);
  const cookies = `__client_uat=1; __client_uat_${suffix}=1; __session_${suffix}=${token}; __session=${sessionToken({ sub: "user_2" })}`;
  assert.equal((await clerkToken(await stateOf({ cookie: cookies }))).reveal(), token);
});

test("where Clerk takes no token there is none", async () => {
  const stranger = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey;
  for (const headers of [
    {},
    { authorization: `Bearer ${CANARY}` },
    { authorization: `Bearer ${sessionToken({}, stranger)}` },
    { authorization: `Bearer ${sessionToken({ exp: 1, iat: 0, nbf: 0 })}` },
    { authorization: `Bearer ${sessionToken({ sts: "pending" })}` },
  ]) {
    assert.equal((await clerkToken(await stateOf(headers))).reveal(), "", JSON.stringify(headers));
  }
});

test("getAuth of @clerk/express gives the token of the request", async (t) => {
  const app = express();
  app.use(clerkMiddleware({ clerkClient: clerk, publishableKey, secretKey, jwtKey }));
  app.get("/", async (req, res) => {
    res.send((await clerkToken(() => getAuth(req))).reveal());
  });
  const server = app.listen(0, "127.0.0.1");
  t.after(() => server.close());
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo;
  const token = sessionToken();
  const received = await send(port, `GET / HTTP/1.1\r\nAuthorization: Bearer ${token}\r\n`);
  assert.deepEqual([received.status, received.body], [200, token]);
  assert.equal((await send(port, "GET /")).body, "");
});

test("what auth of @clerk/nextjs gives is taken, as its types say", () => {
  const typed: [(made: typeof auth) => unknown, (made: ReturnType<typeof auth>) => unknown] = [
    clerkToken,
    clerkToken,
  ];
  assert.equal(typed.length, 2);
});

test("a machine's token is no session token", async () => {
  for (const tokenType of ["api_key", "m2m_token", "oauth_token"]) {
    const machine = { tokenType, getToken: async () => "ak_secret" };
    assert.equal((await clerkToken(machine)).reveal(), "");
  }
});

test("what is not from Clerk is refused", async () => {
  for (const auth of [undefined, {}, "token", { getToken: "token" }, { userId: "user_1" }, () => undefined]) {
    await assert.rejects(clerkToken(auth as unknown as ClerkAuth), TypeError);
  }
});

test("a denial that a verification would lift looks to Clerk's front ends like one of Clerk's own", () => {
  const ages: [number, number][] = [
    [0, 1],
    [59, 1],
    [540, 9],
    [600, 10],
    [86_400, 1_440],
  ]; // seconds, minutes
  for (const factor of ["first_factor", "second_factor", "multi_factor"] satisfies Factor[]) {
    for (const [maxAgeSeconds, afterMinutes] of ages) {
      const refusal = refusalOf(new Forbidden(denied({ factor, maxAgeSeconds })));
      const body: unknown = JSON.parse(refusal.body);
      assert.ok(isReverificationHint(body), refusal.body);
      const { clerk_error } = body;
      assert.deepEqual({ clerk_error }, reverificationError({ level: factor, afterMinutes }));
      assert.ok(validateReverificationConfig(clerk_error.metadata?.reverification), refusal.body);
    }
  }
  assert.ok(!isReverificationHint(JSON.parse(refusalOf(new Forbidden(denied(null))).body)));
});

function denied(stepUp: StepUp | null): Decision {
  return new Decision({
    allowed: false,
    reason: "CONDITION_NOT_MET",
    message: "",
    denialKind: "forbidden",
    actor: null,
    decisionId: "decision-2",
    ruleId: null,
    grantId: null,
    revision: 7n,
    reusableUntil: null,
    source: "decided",
    stepUp,
  });
}
