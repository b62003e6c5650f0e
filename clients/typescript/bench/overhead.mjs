// What the guard costs beyond its stub, a question at a time, against a server that is there. Prints one line of JSON:
// {"raw_us_p50", "guard_us_p50", "overhead_us_p50"}. `npm run build` first.

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Client, credentials, Metadata } from "@grpc/grpc-js";

import { Guard, Token } from "../dist/index.js";
import { Decision } from "../dist/pdpapi/v1/core_pb.js";
import { PolicyDecisionService } from "../dist/pdpapi/v1/decision_service_pb.js";

const CALLS_A_ROUND = 200;
const DEADLINE_MS = 5_000;

const { values } = parseArgs({
  options: {
    target: { type: "string" },
    "token-file": { type: "string" },
    permission: { type: "string" },
    resource: { type: "string" },
    calls: { type: "string", default: "4000" },
  },
});
const { target, permission } = values;
const token = readFileSync(values["token-file"], "utf8").trim();
const slash = values.resource.indexOf("/");
const resource = { type: values.resource.slice(0, slash), id: values.resource.slice(slash + 1) };

const { check } = PolicyDecisionService.method;
const path = `/${PolicyDecisionService.typeName}/${check.name}`;
const client = new Client(target, credentials.createInsecure());
const request = create(check.input, { actorToken: token, permission, resource });
const serialize = (message) => Buffer.from(toBinary(check.input, message));
const deserialize = (bytes) => fromBinary(check.output, bytes);

function askRaw() {
  return new Promise((resolve, reject) => {
    const options = { deadline: Date.now() + DEADLINE_MS };
    client.makeUnaryRequest(path, serialize, deserialize, request, new Metadata(), options, (error, answer) => {
      if (error !== null) reject(error);
      else if (answer.decision !== Decision.ALLOW) reject(new Error("the question must be allowed"));
      else resolve();
    });
  });
}

const guard = new Guard(target, { deadlineMs: DEADLINE_MS });
const wrapped = new Token(token);
const askGuard = () => guard.require(wrapped, permission, resource);

async function time(ask, found) {
  for (let call = 0; call < CALLS_A_ROUND; call++) {
    const began = performance.now();
    await ask();
    found.push((performance.now() - began) * 1_000);
  }
}

function median(found) {
  found.sort((one, other) => one - other);
  return found[Math.floor(found.length / 2)];
}

const raw = [];
const guarded = [];
await askRaw();
await askGuard();
for (let round = 0; round < Math.max(1, Math.floor(values.calls / CALLS_A_ROUND)); round++) {
  await time(askRaw, raw); // They take turns, so that what else the machine does is of both.
  await time(askGuard, guarded);
}
guard.close();
client.close();
const [rawP50, guardP50] = [median(raw), median(guarded)];
console.log(JSON.stringify({ raw_us_p50: rawP50, guard_us_p50: guardP50, overhead_us_p50: guardP50 - rawP50 }));
