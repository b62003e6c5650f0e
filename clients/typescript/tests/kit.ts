// What tests share: a server that gives the answers that a test wants, and requests that are sent as they are written.

import { connect, type Socket } from "node:net";
import type { TestContext } from "node:test";

import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type StatusObject,
  type sendUnaryData,
  type status,
} from "@grpc/grpc-js";

import { Guard, type GuardOptions } from "../src/index.js";
import { Decision, DecisionReason, DenialKind } from "../src/pdpapi/v1/core_pb.js";
import {
  type CheckRequest,
  CheckRequestSchema,
  CheckResponseSchema,
  PolicyDecisionService,
} from "../src/pdpapi/v1/decision_service_pb.js";

/** A token that must come back in no text. */
export const CANARY = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl";

const ANSWER_MS_MAX = 30_000;

export type Answer = MessageInitShape<typeof CheckResponseSchema>;

/** An answer, or a status that ends the call; late where it is a promise. */
export type Answering = (request: CheckRequest) => Answer | Partial<StatusObject> | Promise<Answer>;

export const allow = {
  decision: Decision.ALLOW,
  reason: DecisionReason.ALLOWED_BY_RULE,
  actor: { userId: "user_ada", sessionId: "sess_1" },
  decisionId: "decision-1",
} satisfies Answer;

export function deny(kind: DenialKind): Answer {
  const actor = kind === DenialKind.FORBIDDEN ? { actor: { userId: "user_ada", sessionId: "sess_1" } } : {};
  return {
    decision: Decision.DENY,
    denialKind: kind,
    reason: DecisionReason.WRONG_ORGANIZATION,
    decisionId: "decision-2",
    ...actor,
  };
}

/** Allows `*:allowed` to who has a token. */
export function byPermission(request: CheckRequest): Answer {
  if (request.actorToken === "") return deny(DenialKind.UNAUTHENTICATED);
  return request.permission.endsWith(":allowed") ? allow : deny(DenialKind.FORBIDDEN);
}

/** A server of the contract, over real connections. */
export interface Answerer {
  readonly address: string;
  readonly requests: CheckRequest[];
  readonly metadata: Metadata[];
  stop(): void;
}

/** Serves Check until the test ends, on a free port of the loopback or on the address given. */
export async function answering(t: TestContext, answer: Answering, address = "127.0.0.1:0"): Promise<Answerer> {
  const server = new Server();
  const requests: CheckRequest[] = [];
  const metadata: Metadata[] = [];
  const { check } = PolicyDecisionService.method;
  server.register<Buffer, Buffer>(
    `/${PolicyDecisionService.typeName}/${check.name}`,
    (call: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>) => {
      const request = fromBinary(CheckRequestSchema, call.request);
      requests.push(request);
      metadata.push(call.metadata);
      void Promise.resolve(answer(request)).then((given) => {
        if ("code" in given) callback(given as StatusObject);
        else
          callback(null, Buffer.from(toBinary(CheckResponseSchema, create(CheckResponseSchema, given as Answer))));
      });
    },
    (bytes) => bytes,
    (bytes) => bytes,
    "unary",
  );
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(address, ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  const stop = () => server.forceShutdown();
  t.after(stop);
  return { address: address.startsWith("unix:") ? address : `127.0.0.1:${port}`, requests, metadata, stop };
}

/** A guard that is closed when the test ends; patient, where the test is not about time. */
export function guarding(t: TestContext, target: string, options: GuardOptions = {}): Guard {
  const guard = new Guard(target, { deadlineMs: 10_000, ...options });
  t.after(() => guard.close());
  return guard;
}

/** A status as a server ends a call with it. */
export function failing(code: status, details: string): Partial<StatusObject> {
  return { code, details, metadata: new Metadata() };
}

export interface Received {
  readonly status: number;
  readonly headers: ReadonlyMap<string, string>;
  readonly body: string;
}

/** Sends a request as it is written, `GET / HTTP/1.1` and headers, and gives what came back. */
export async function send(port: number, head: string): Promise<Received> {
  const lines = head.includes(" HTTP/1.1\r\n") ? head : `${head} HTTP/1.1\r\n`;
  const text = await new Promise<string>((resolve, reject) => {
    const socket: Socket = connect(port, "127.0.0.1");
    let received = "";
    socket.setEncoding("utf8");
    socket.on("data", (some) => {
      received += some;
    });
    socket.on("close", () => resolve(received));
    socket.on("error", reject);
    socket.setTimeout(ANSWER_MS_MAX, () => socket.destroy(new Error(`no end of an answer to ${head}`)));
    socket.write(`${lines}Host: localhost\r\nConnection: close\r\n\r\n`, "latin1");
  });
  const [top = "", ...rest] = text.split("\r\n\r\n");
  const [first = "", ...headers] = top.split("\r\n");
  const chunked = /^transfer-encoding: chunked$/im.test(top);
  const body = rest.join("\r\n\r\n");
  return {
    status: Number(first.split(" ")[1]),
    headers: new Map(
      headers.map((line) => [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 2)]),
    ),
    body: chunked ? unchunked(body) : body,
  };
}

function unchunked(body: string): string {
  return body.replace(/^[0-9a-f]+\r\n/gim, "").replace(/\r\n/g, "");
}
