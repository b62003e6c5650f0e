import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import { Guard, type GuardOptions, PdpUnavailable } from "../src/index.js";
import { type Servers, SKIP, startServers } from "./conformance-servers.js";
import { allow, answering, guarding } from "./kit.js";

const TLS = { tls: {} };

test("clear text stays on the loopback", (t) => {
  for (const target of [
    "127.0.0.1:50051",
    "127.8.9.1",
    "localhost:50051",
    "localhost",
    "[::1]:50051",
    "[::1]",
    "::1",
    "[::ffff:127.0.0.1]:1",
    "dns:///localhost:50051",
    "dns:localhost:50051",
    "ipv4:127.0.0.1:1,127.0.0.2:2",
    "ipv6:[::1]:1",
    "unix:/run/pdp.sock",
    "unix:///run/pdp.sock",
  ]) {
    guarding(t, target, { apiKey: "key" });
  }
  for (const target of [
    "pdp.internal:50051",
    "10.0.0.1:50051",
    "dns:///pdp.internal:50051",
    "ipv4:127.0.0.1:1,10.0.0.1:2",
    "ipv6:[2001:db8::1]:1",
    "[::ffff:10.0.0.1]:1",
    "localhost.example.com:1",
    "127.0.0.1.example.com:1",
    "0.0.0.0:50051",
    "LOCALHOST:1",
  ]) {
    assert.throws(() => new Guard(target), /clear text/, target);
    assert.throws(() => new Guard(target, { insecure: false }), /clear text/, target);
    guarding(t, target, { insecure: true });
    guarding(t, target, TLS);
  }
});

test("a target that is not one is refused", () => {
  for (const target of [
    "",
    ":50051",
    "host:",
    "host:port",
    "host:99999",
    "xds:///localhost",
    "http://localhost:50051",
    "ipv4:localhost:1",
    "ipv4:[::1]:1",
    "ipv6:127.0.0.1:1",
    "ipv4:",
    "ipv4:127.0.0.1:1,",
    "me@localhost:1",
    "a:b:c",
    "dns://127.0.0.1/pdp.internal:50051",
    "localhost/x:1",
    "passthrough:///127.0.0.1:1",
    "unix-abstract:pdp",
    "a,b:1",
    "a b:1",
    "[localhost]:1",
  ]) {
    assert.throws(() => new Guard(target, { insecure: true }), RangeError, target);
  }
  for (const target of [undefined, null, 1, ["localhost:1"]]) {
    assert.throws(() => new Guard(target as unknown as string), TypeError);
  }
});

test("options that do not hold are refused, and keys are not told", () => {
  for (const options of [
    { deadlineMs: 0 },
    { deadlineMs: -1 },
    { deadlineMs: Number.NaN },
    { deadlineMs: Number.POSITIVE_INFINITY },
    { deadlineMs: "250" },
    { cookieName: "" },
    { cookieName: 1 },
    { insecure: "false" },
    { tls: null },
    { tls: true },
    { tls: { cert: "cert.pem" } },
    { tls: { key: "key.pem" } },
    { tls: { ca: "/does/not/exist.pem" } },
    { apikey: "key" },
    { TLS: {} },
    { deadline: 1 },
  ]) {
    assert.throws(() => new Guard("localhost:1", options as GuardOptions), JSON.stringify(options));
  }
  for (const apiKey of ["", "two words", "line\nbreak", "ü", "k\0k", "k".repeat(4_097), "key\n"]) {
    assert.throws(
      () => new Guard("localhost:1", { apiKey }),
      (error: Error) => apiKey === "" || !error.message.includes(apiKey),
    );
  }
  const key = "-----BEGIN PRIVATE KEY-----\nsecret";
  assert.throws(
    () => new Guard("localhost:1", { tls: { cert: "cert.pem", key } }),
    (error: Error) => !String(error.stack).includes("secret"),
  );
});

describe("TLS", { skip: SKIP }, () => {
  let servers: Servers;
  before(async () => {
    servers = await startServers();
  });
  after(() => servers.stop());

  test("by mTLS a guard is answered, by files and by what is in them", async (t) => {
    const { target, ca, cert, key } = servers.tls;
    const pem = { ca: readFileSync(ca), cert: readFileSync(cert), key: readFileSync(key) };
    for (const tls of [{ ca, cert, key }, pem]) {
      await guarding(t, target, { tls, apiKey: "key" }).require("a.b.c", "case:allow");
    }
    const addresses = `ipv4:127.0.0.1:${target.split(":")[1]}`;
    await guarding(t, addresses, { tls: pem }).require("a.b.c", "case:allow");
  });

  test("neither is spoken with who does not prove itself", async (t) => {
    const { target, ca, cert, key } = servers.tls;
    const elsewhere = target.replace("localhost", "127.0.0.2");
    const wrong: [string, string, GuardOptions][] = [
      ["no certificate", target, { tls: { ca } }],
      ["the roots of the system", target, { tls: { cert, key } }],
      ["another authority", target, { tls: { ca: cert, cert, key } }],
      ["another name", elsewhere, { tls: { ca, cert, key } }],
      ["clear text", target, {}],
    ];
    for (const [name, where, options] of wrong) {
      const guard = guarding(t, where, { ...options, deadlineMs: 400 });
      await assert.rejects(guard.require("a.b.c", "case:allow"), PdpUnavailable, name);
    }
  });
});

test("a clear text server gets no token over TLS", async (t) => {
  const server = await answering(t, () => allow);
  const guard = guarding(t, server.address, { ...TLS, apiKey: "key", deadlineMs: 300 });
  await assert.rejects(guard.require("a.b.c", "a:b"), PdpUnavailable);
  assert.equal(server.requests.length, 0);
});

test("every address is used, and a dead one passed over", async (t) => {
  const [one, two] = [await answering(t, () => allow), await answering(t, () => allow)];
  const dead = await freePort();
  const guard = guarding(t, `ipv4:${one.address},127.0.0.1:${dead},${two.address}`);
  for (let call = 0; call < 40; call++) await guard.require("a.b.c", "a:b");
  assert.ok(one.requests.length > 0 && two.requests.length > 0);
  one.stop();
  for (let call = 0; call < 20; call++) await guard.require("a.b.c", "a:b");
});

test("a guard outlives its server", async (t) => {
  const first = await answering(t, () => allow);
  const guard = guarding(t, first.address);
  await guard.require("a.b.c", "a:b");
  first.stop();
  await assert.rejects(guarding(t, first.address, { deadlineMs: 50 }).require("a.b.c", "a:b"), PdpUnavailable);
  await answering(t, () => allow, first.address);
  await guard.require("a.b.c", "a:b");
});

test("a socket of this machine is a target", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "guard-"));
  t.after(() => rmSync(directory, { recursive: true }));
  const target = `unix:${directory}/pdp.sock`;
  await answering(t, () => allow, target);
  await guarding(t, target).require("", "a:b");
});

/** Runs a program that has `guard`, and gives what it printed; it must end by itself. */
async function running(program: string, env: Record<string, string> = {}): Promise<string> {
  const index = fileURLToPath(new URL("../src/index.js", import.meta.url));
  const text = `import { Guard } from ${JSON.stringify(index)};\n${program}`;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", text], {
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (some) => {
      said += some;
    });
  }
  const code = await new Promise((resolve) => child.once("close", resolve));
  assert.equal(code, 0, said);
  return said;
}

test("a proxy of the environment is not used", async (t) => {
  let reached = 0;
  const proxy = createServer((socket) => {
    reached++;
    socket.destroy();
  }).listen(0, "127.0.0.1");
  t.after(() => proxy.close());
  await new Promise((resolve) => proxy.once("listening", resolve));
  const url = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  // A host that leads nowhere, because for the loopback no proxy might be used anyway.
  const said = await running(
    `const guard = new Guard("pdp.invalid:50051", { insecure: true, deadlineMs: 300 });
     await guard.require("a.b.c", "a:b").catch((error) => console.log(error.name));`,
    { http_proxy: url, https_proxy: url, grpc_proxy: url, no_proxy: "" },
  );
  assert.equal(said.trim(), "PdpUnavailable");
  assert.equal(reached, 0);
});

test("a program that has asked ends although it has not closed its guard", async (t) => {
  const server = await answering(t, () => allow);
  const said = await running(
    `const guard = new Guard(${JSON.stringify(server.address)}, { deadlineMs: 10000 });
     console.log((await guard.require("a.b.c", "a:b")).userId);`,
  );
  assert.equal(said.trim(), "user_ada");
});

test("the tracing of gRPC shows neither token nor key", async (t) => {
  const server = await answering(t, () => allow);
  const said = await running(
    `const guard = new Guard(${JSON.stringify(server.address)}, { deadlineMs: 10000, apiKey: "key-of-this-caller" });
     console.log((await guard.require("token-of-the-actor", "a:b")).userId);`,
    { GRPC_TRACE: "all", GRPC_VERBOSITY: "DEBUG" },
  );
  assert.ok(said.includes("user_ada") && said.length > 1_000);
  assert.ok(!said.includes("key-of-this-caller") && !said.includes("token-of-the-actor"), said);
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
