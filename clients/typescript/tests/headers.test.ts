import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";

import { type HeadersLike, SESSION_COOKIE, sessionToken } from "../src/index.js";
import { cases } from "./conformance-servers.js";
import { guarding, send } from "./kit.js";

test("of what Node has received the token is the same", async (t) => {
  const suite = cases<{
    cases: { name: string; headers: [string, string][]; cookie_name?: string; token: string }[];
  }>("tokens").cases;
  let cookieName = SESSION_COOKIE;
  const server = createServer((request, response) => {
    const guard = guarding(t, "127.0.0.1:1", { cookieName });
    response.end(guard.sessionToken(request).reveal());
  }).listen(0, "127.0.0.1");
  t.after(() => server.close());
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo;
  for (const { name, headers, cookie_name, token } of suite) {
    cookieName = cookie_name ?? SESSION_COOKIE;
    const lines = headers.map(([header, value]) => `${header}: ${value}\r\n`).join("");
    const { status, body } = await send(port, `GET / HTTP/1.1\r\n${lines}`);
    assert.deepEqual([status, body], [200, token], name);
  }
});

test("where headers are joined by a comma, two of them are none", () => {
  const cookie = "__session=a.b.c";
  const joined: [HeadersLike, string][] = [
    [new Headers({ authorization: "Bearer x.y.z", cookie }), "x.y.z"],
    [
      new Headers([
        ["Authorization", "Bearer x.y.z"],
        ["authorization", "Bearer x.y.z"],
        ["Cookie", cookie],
      ]),
      "",
    ],
    [
      new Headers([
        ["Authorization", "Basic dTpw"],
        ["Authorization", "Bearer x.y.z"],
        ["Cookie", cookie],
      ]),
      "",
    ],
    [
      new Headers([
        ["Cookie", "a=1"],
        ["Cookie", cookie],
      ]),
      "a.b.c",
    ],
    [
      new Headers([
        ["Cookie", cookie],
        ["Cookie", cookie],
      ]),
      "",
    ],
    [{ authorization: "Bearer x.y.z, Bearer x.y.z", cookie }, ""],
    [{ Authorization: ["Bearer x.y.z", "Bearer x.y.z"], cookie }, ""],
    [{ Authorization: ["Bearer x.y.z"], cookie: [cookie, "a=1"] }, "x.y.z"],
    [{ authorization: undefined, cookie: ["a=1", cookie] }, "a.b.c"],
    [{ authorization: "Bearer x.y.z", Authorization: "Bearer x.y.z" }, ""],
    [{}, ""],
    [[], ""],
  ];
  for (const [headers, token] of joined) {
    assert.equal(sessionToken(headers).reveal(), token, JSON.stringify(headers));
  }
});

test("a long header of spaces is read in no time", () => {
  const spaces = " \t".repeat(500_000);
  const began = performance.now();
  for (const value of [`Bearer${spaces}x${spaces}y`, `${spaces}x`, `Bearer${spaces}`]) {
    sessionToken([
      ["authorization", value],
      ["cookie", `${spaces}=${spaces};`],
    ]);
  }
  assert.ok(performance.now() - began < 2_000);
});
