import assert from "node:assert/strict";
import { test } from "node:test";
import vm from "node:vm";

import { fromBinary, toJson } from "@bufbuild/protobuf";
import { StructSchema } from "@bufbuild/protobuf/wkt";

import { toStruct } from "../src/attributes.js";

/** What the other side reads; only `__proto__` is lost to who decodes by the library. */
function read(attributes: unknown): unknown {
  return toJson(StructSchema, fromBinary(StructSchema, toStruct(attributes, "context")));
}

function nested(levels: number, wrap: (inner: unknown) => unknown): unknown {
  let value: unknown = {};
  for (let level = 0; level < levels; level++) value = wrap(value);
  return value;
}

test("what JSON knows is what the other side reads", () => {
  const attributes = {
    null: null,
    yes: true,
    no: false,
    zero: 0,
    small: -(2 ** 53),
    half: 0.5,
    tiny: 5e-324,
    text: "é\u0000 😀",
    "": "",
    list: [1, "a", null, [], {}],
    object: { a: { b: {} } },
    constructor: 1,
    hasOwnProperty: 2,
  };
  assert.deepEqual(read(attributes), attributes);
  assert.deepEqual(read({ exact: 7n, largest: 2n ** 53n }), { exact: 7, largest: 2 ** 53 });
  assert.deepEqual(read(Object.assign(Object.create(null), { a: 1 })), { a: 1 });
  assert.deepEqual(read(vm.runInNewContext("({ a: [{ b: 1 }] })")), { a: [{ b: 1 }] });
  assert.deepEqual(read({}), {});
});

test("random values arrive as they are", () => {
  const random = (below: number) => Math.floor(Math.random() * below);
  const value = (depth: number): unknown => {
    const kinds = [null, random(2) === 0, random(2 ** 40) - 2 ** 39, Math.random() * 1e9, `t${random(99)}é`];
    const kind = random(depth > 3 ? 5 : 7);
    if (kind < 5) return kinds[kind];
    const items = Array.from({ length: random(4) }, () => value(depth + 1));
    return kind === 5 ? items : Object.fromEntries(items.map((item, index) => [`k${index}`, item]));
  };
  for (let round = 0; round < 300; round++) {
    const attributes = { value: value(0) };
    assert.deepEqual(read(attributes), attributes);
  }
});

test("a key __proto__ is one like any other", () => {
  const attributes = JSON.parse('{"__proto__": {"admin": true}, "a": 1}');
  const bytes = Buffer.from(toStruct(attributes, "context"));
  assert.ok(bytes.includes("__proto__") && bytes.includes("admin"));
  assert.deepEqual(read({ a: 1 }), { a: 1 });
});

test("what has no form in JSON is refused, and its value is not told", () => {
  class Course {
    secret = 1;
  }
  const wrong: unknown[] = [
    undefined,
    () => "secret",
    Symbol("secret"),
    new Date(0),
    new Map(),
    new Set(["secret"]),
    new Course(),
    Object.create({ secret: 1 }),
    Buffer.from("secret"),
    new String("secret"),
    /secret/,
    Promise.resolve("secret"),
    Array(1),
    { [Symbol("secret")]: 1 },
    { toJSON: () => "secret" },
  ];
  for (const value of wrong) {
    for (const attributes of [{ a: value }, { a: [value] }, { a: { b: value } }]) {
      assert.throws(
        () => toStruct(attributes, "context"),
        (error: Error) =>
          error instanceof TypeError && /^context\.a/.test(error.message) && !/secret/.test(error.message),
      );
    }
  }
  for (const attributes of [undefined, null, "a", 1, [], new Map(), new Course()]) {
    assert.throws(() => toStruct(attributes, "context"), TypeError);
  }
});

test("numbers that are not exact are refused", () => {
  for (const value of [2 ** 53 + 2, -(2 ** 53) - 2, 1e300, 2n ** 53n + 1n, -(2n ** 53n) - 1n, 10n ** 400n]) {
    assert.throws(() => toStruct({ n: value }, "attributes"), RangeError);
  }
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    assert.throws(
      () => toStruct({ a: [value] }, "context"),
      /^RangeError: context\.a\[0\]: a number must be finite/,
    );
  }
});

test("text that is not Unicode is refused", () => {
  for (const attributes of [{ a: "\ud800" }, { "\udfff": 1 }]) {
    assert.throws(() => toStruct(attributes, "context"), /not Unicode text/);
  }
});

test("sixteen levels are taken, seventeen and circles are not", () => {
  for (const wrap of [(inner: unknown) => ({ a: inner }), (inner: unknown) => [inner]]) {
    toStruct({ top: nested(14, wrap) }, "context");
    assert.throws(() => toStruct({ top: nested(15, wrap) }, "context"), /deeper than 16 levels/);
  }
  const circle: unknown[] = [];
  circle.push(circle);
  assert.throws(() => toStruct({ circle }, "context"), /deeper than 16 levels/);
});
