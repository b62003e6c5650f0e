import assert from "node:assert/strict";
import { test } from "node:test";

import { PdpRefused, PdpUnavailable, RouteRefused, refuse } from "../src/index.js";
import { logRefusal } from "../src/logging.js";
import { CANARY } from "./kit.js";

function logged(error: Parameters<typeof logRefusal>[0], method: string, target: string): string[] {
  const lines: string[] = [];
  logRefusal(error, (text) => lines.push(text), { method, target });
  return lines;
}

test("a line of the log is printable ASCII, whatever a stranger or a server has written", () => {
  const hostile = `a\r\nb\u001b[31m\u202e\u00e9\u{1f480}\\${CANARY}`;
  const shown = "a\\u{d}\\u{a}b\\u{1b}[31m\\u{202e}\\u{e9}\\u{1f480}\\u{5c}<token>";
  const named = "A\\u{a}B";
  assert.deepEqual(logged(new RouteRefused("no_route"), "A\nB", `/${hostile}`), [
    `route refused: no_route (${named} /${shown})`,
  ]);
  for (const error of [new PdpUnavailable(hostile, "UNKNOWN"), new PdpRefused(hostile, "UNKNOWN")]) {
    assert.deepEqual(logged(error, "GET", "/x?secret"), [`no decision: UNKNOWN ${shown} (GET /x)`]);
  }
});

test("refuse says why there was no decision, to console.warn or to the given logger", (t) => {
  const warn = t.mock.method(console, "warn", () => {});
  assert.equal(refuse(new PdpUnavailable("the guard is closed")).status, 503);
  assert.deepEqual(
    warn.mock.calls.map((call) => call.arguments),
    [["no decision: the guard is closed"]],
  );
  const lines: string[] = [];
  assert.equal(refuse(new RouteRefused("no_route"), (text) => lines.push(text)).status, 403);
  assert.deepEqual(lines, ["route refused: no_route"]);
  assert.equal(warn.mock.callCount(), 1);
});
