// Plans as Prisma's `where`: what is written, and what is refused. tests/prisma asks a real database.

import assert from "node:assert/strict";
import { describe as suite, test } from "node:test";

import { FilterUnsupported, PlanInvalid, planFromJSON } from "../src/index.js";
import * as adapter from "../src/prisma.js";

const { describe, integer, many, number, one, reference, resourceOf, text, uuid } = adapter;

const courses = describe("course", {
  id: integer("id"),
  organization: text("organizationId"),
  parent: reference("catalog", uuid("catalogId", { nullable: true })),
  attributes: {
    owner: text("ownerId"),
    editor: text("editorId", { nullable: true }),
    code: text("code", { bytewise: true }),
    seats: integer("seats", { nullable: true }),
    tags: many("tags", text("name")),
    department: one("department", { name: text("name") }, { optional: true }),
  },
});

const measures = describe("course", {
  id: text("id"),
  attributes: { level: number("level"), rank: number("rank", { nullable: true }) },
});

const editor = { path: ["attributes", "editor"] };

function planned(filter: object | null, changes: object = {}) {
  const outcome = filter === null ? "PLAN_OUTCOME_NOTHING" : "PLAN_OUTCOME_FILTER";
  const plan = { version: 1, permission: "course:view", resourceType: "course", outcome, ...changes };
  return planFromJSON(JSON.stringify(filter === null ? plan : { ...plan, filter }));
}

/** What stands within the AND of a condition. */
function where(...parameters: Parameters<typeof adapter.where>) {
  const { AND, ...others } = adapter.where(...parameters) as { AND: object[] };
  assert.deepEqual(others, {});
  assert.equal(AND.length, 1);
  return AND[0];
}

function compared(name: string, operator: string, value: unknown) {
  return { compare: { operator: `FILTER_OPERATOR_${operator}`, left: { path: ["attributes", name] }, value } };
}

suite("a plan", () => {
  test("for nothing takes no row, and for everything each", () => {
    assert.deepEqual(where(planned(null), courses), { id: { in: [] } });
    assert.deepEqual(where(planned(null, { outcome: "PLAN_OUTCOME_EVERYTHING" }), courses), {
      NOT: { id: { in: [] } },
    });
  });

  test("keeps its condition when it is spread beside conditions on the same column", () => {
    const asked = { id: 9, OR: [{}] };
    const ofSeven = adapter.where(planned({ oneOf: { field: { path: ["id"] }, values: ["7"] } }), courses);
    assert.deepEqual({ ...ofSeven, ...asked }, { AND: [{ id: 7 }], ...asked });
    assert.deepEqual(
      { ...adapter.where(planned(null), courses), ...asked },
      { AND: [{ id: { in: [] } }], ...asked },
    );
  });

  for (const [operator, bound, expected] of [
    ["LESS", 2.5, { lt: 3 }],
    ["LESS_OR_EQUAL", 2.5, { lte: 2 }],
    ["GREATER", 2.5, { gt: 2 }],
    ["GREATER_OR_EQUAL", 2.5, { gte: 3 }],
    ["LESS", 1e12, { not: null }],
    ["GREATER_OR_EQUAL", -1e12, { not: null }],
  ] as const) {
    test(`compares an Int by ${operator} ${bound} without a fraction`, () => {
      assert.deepEqual(where(planned(compared("seats", operator, bound)), courses), { seats: expected });
    });
  }

  test("beyond every Int takes no row", () => {
    assert.deepEqual(where(planned(compared("seats", "GREATER", 1e12)), courses), { id: { in: [] } });
    assert.deepEqual(where(planned(compared("seats", "EQUAL", 2.5)), courses), { id: { in: [] } });
  });

  const MAX = 1.797693134862315e308;
  const held = { gte: -MAX, lte: MAX };
  for (const [operator, expected] of [
    ["LESS", { level: { lt: 5, gte: -MAX } }],
    ["GREATER_OR_EQUAL", { level: { gte: 5, lte: MAX } }],
    ["EQUAL", { level: 5 }],
    ["NOT_EQUAL", { AND: [{ level: held }, { level: { not: 5 } }] }],
  ] as const) {
    test(`takes no row with NaN or an infinity by ${operator}`, () => {
      assert.deepEqual(where(planned(compared("level", operator, 5)), measures), expected);
    });
  }

  for (const bound of [2 ** 64 + 2 ** 12, Number.MAX_VALUE]) {
    for (const operator of ["LESS", "EQUAL", "NOT_EQUAL"]) {
      test(`refuses ${operator} ${bound}, of which Prisma sends another number`, () => {
        assert.throws(() => where(planned(compared("level", operator, bound)), measures), FilterUnsupported);
      });
    }
  }

  test("takes no row with NaN or an infinity beside another field", () => {
    const [left, field] = ["level", "rank"].map((name) => ({ path: ["attributes", name] }));
    const compare = { operator: "FILTER_OPERATOR_LESS", left, field };
    const rank = { reference: "rank" };
    assert.deepEqual(where(planned({ compare }), measures, { rank }), {
      AND: [{ rank: { not: null } }, { level: held }, { rank: held }, { level: { lt: rank } }],
    });
  });

  for (const [operator, expected] of [
    ["LESS", { code: { lte: "a" } }],
    ["GREATER", { code: { gt: "a" } }],
    ["EQUAL", { id: { in: [] } }],
    ["NOT_EQUAL", { NOT: { id: { in: [] } } }],
  ] as const) {
    test(`compares with a text that no row holds by ${operator}`, () => {
      assert.deepEqual(where(planned(compared("code", operator, "a\0b")), courses), expected);
    });
  }

  test("compares an id that is stored as another type in its one form", () => {
    const is = (value: string) => ({
      compare: { operator: "FILTER_OPERATOR_EQUAL", left: { path: ["id"] }, value },
    });
    assert.deepEqual(where(planned(is("7")), courses), { id: 7 });
    for (const value of ["07", "7.0", "seven", "", "9999999999"]) {
      assert.deepEqual(where(planned(is(value)), courses), { id: { in: [] } });
    }
  });

  test("takes patterns of LIKE for the characters that they are", () => {
    const match = { test: "FILTER_TEXT_TEST_CONTAINS", field: { path: ["attributes", "owner"] }, text: "a%_\\" };
    assert.deepEqual(where(planned({ match }), courses), { ownerId: { contains: "a\\%\\_\\\\" } });
  });

  test("takes a row without a related row to have none of its fields", () => {
    const kindIs = { field: { path: ["attributes", "department", "name"] }, kinds: ["FILTER_KIND_ABSENT"] };
    assert.deepEqual(where(planned({ kindIs }), courses), { department: { is: null } });
  });

  test("orders texts that the database orders by their bytes", () => {
    assert.deepEqual(where(planned(compared("code", "LESS", "m")), courses), { code: { lt: "m" } });
  });

  test("compares two fields of a row by a reference", () => {
    const left = { path: ["attributes", "owner"] };
    const different = { compare: { operator: "FILTER_OPERATOR_NOT_EQUAL", left, field: editor } };
    const editorId = { reference: "editorId" };
    assert.deepEqual(where(planned(different), courses, { editorId }), {
      AND: [{ editorId: { not: null } }, { ownerId: { not: { equals: editorId } } }],
    });
  });

  for (const [why, filter, message] of [
    [
      "two fields without references to them",
      { compare: { operator: "FILTER_OPERATOR_EQUAL", left: { path: ["attributes", "owner"] }, field: editor } },
      /course.owner and course.editor: pass prisma.<model>.fields/,
    ],
    ["the order of texts", compared("owner", "LESS", "m"), /owner: its order depends on the collation/],
    ["an attribute that is not described", compared("size", "EQUAL", 1), /course.size is not described/],
    [
      "two fields",
      { compare: { operator: "FILTER_OPERATOR_EQUAL", left: { path: ["id"] }, field: { path: ["organization"] } } },
      /two fields: the id of course and the organization of course: they are stored as integer and text/,
    ],
    ["rows that must be stored", { stored: { types: ["course"] } }, /type course must be stored/],
    [
      "the row itself within a condition on related rows",
      {
        some: {
          field: { path: ["attributes", "tags"] },
          body: compared("owner", "EQUAL", "user_ivan"),
        },
      },
      /resource.attributes.owner within a condition on related rows/,
    ],
  ] as const) {
    test(`refuses ${why} by name`, () => {
      assert.throws(() => where(planned(filter), courses), { name: FilterUnsupported.name, message });
    });
  }

  test("for another type is refused", () => {
    assert.throws(() => where(planned(null, { resourceType: "lesson" }), courses), FilterUnsupported);
  });

  for (const [what, changes] of [
    ["version", { version: 2 }],
    ["outcome", { outcome: 9 }],
    ["filter beside an outcome without one", { outcome: "PLAN_OUTCOME_EVERYTHING", filter: { all: {} } }],
    ["filter that is missing", { outcome: "PLAN_OUTCOME_FILTER" }],
    ["node", { outcome: "PLAN_OUTCOME_FILTER", filter: {} }],
    ["operator", { outcome: "PLAN_OUTCOME_FILTER", filter: { compare: { left: { path: ["id"] }, value: "x" } } }],
    ["field", { outcome: "PLAN_OUTCOME_FILTER", filter: { kindIs: { field: { level: 1 }, kinds: [] } } }],
    ["constant", { outcome: "PLAN_OUTCOME_FILTER", filter: compared("owner", "EQUAL", { a: 1 }) }],
    ["key", { unknown: true }],
  ] as const) {
    test(`of an unknown ${what} is refused`, () => {
      assert.throws(() => planned(null, changes), PlanInvalid);
    });
  }
});

suite("the resource of a row", () => {
  const row = {
    id: 7,
    organizationId: "org_school",
    catalogId: null,
    ownerId: "user_ivan",
    editorId: null,
    code: "x",
    seats: null,
    tags: [{ name: "new" }],
    department: null,
  };

  test("has what conditions read", () => {
    assert.deepEqual(resourceOf(row, courses), {
      type: "course",
      id: "7",
      organizationId: "org_school",
      attributes: { owner: "user_ivan", code: "x", tags: ["new"] },
    });
  });

  test("is an error without a relation that conditions may read", () => {
    const { tags: _, ...without } = row;
    assert.throws(() => resourceOf(without, courses), /the row has no tags/);
  });
});
