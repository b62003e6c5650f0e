import assert from "node:assert/strict";
import { test } from "node:test";

import { type Decision, PermissionSet } from "../src/index.js";
import { permissionSet } from "../src/permissions.js";

const [ONE, TWO] = [
  { type: "course", id: "1" },
  { type: "course", id: "2" },
];
const [YES, NO] = [{ allowed: true }, { allowed: false }] as [Decision, Decision];

function made(): PermissionSet {
  const asked = [
    { permission: "a:b", resource: ONE },
    { permission: "a:b", resource: ONE },
    { permission: "a:b", resource: TWO },
    { permission: "a:b" },
    { permission: "a:c", resource: ONE },
  ];
  return permissionSet(asked, [YES, NO, YES, NO, YES]);
}

test("a set holds where all questions of one thing hold", () => {
  const set = made();
  assert.deepEqual(
    [set.holds("a:b", ONE), set.holds("a:b", TWO), set.holds("a:b"), set.holds("a:c", ONE), set.holds("a:c", TWO)],
    [false, true, false, true, false],
  );
  assert.equal(set.holds("a:d"), false);
  assert.equal(new PermissionSet().holds("a:b"), false);
});

test("texts that look alike when they are joined are different questions", () => {
  const set = permissionSet([{ permission: "a:b", resource: { type: "c", id: '1","d' } }], [YES]);
  assert.equal(set.holds('a:b","c', { type: "1", id: "d" }), false);
  assert.equal(set.holds("a:b", { type: "c", id: '1","d' }), true);
});

test("a front end gets what holds, and reads it back", () => {
  const json = JSON.stringify(made());
  assert.equal(
    json,
    '[{"permission":"a:b","type":"course","id":"2"},{"permission":"a:c","type":"course","id":"1"}]',
  );
  const read = PermissionSet.fromJSON(JSON.parse(json));
  assert.ok(read.holds("a:b", TWO) && !read.holds("a:b", ONE));
  assert.equal(JSON.stringify(new PermissionSet()), "[]");
});

test("what is no set is not read as one", () => {
  for (const json of [null, {}, "[]", [1], [null], [{}], [{ permission: 1 }], [{ permission: "a:b", type: "c" }]]) {
    assert.throws(() => PermissionSet.fromJSON(json), TypeError, JSON.stringify(json));
  }
});
