// The rows of tests/kit/filters/tables.py, described for Prisma.

import { boolean, describe, integer, many, number, one, parent, text } from "../../src/prisma.js";

const nullable = { nullable: true };

const catalogs = describe("catalog", {
  id: text("id"),
  organization: text("organizationId", nullable),
  stored: true,
});

const courses = describe("course", {
  id: text("id"),
  organization: text("organizationId", nullable),
  parent: parent("catalog", catalogs, { optional: true }),
  stored: true,
});

export const lessons = describe("lesson", {
  id: text("id"),
  organization: text("organizationId", nullable),
  parent: parent("course", courses, { optional: true }),
  attributes: {
    owner: text("owner", { nullable: true, bytewise: true }),
    editor: text("editor", nullable),
    title: text("title", { nullable: true, nullIsValue: true }),
    level: number("level", nullable),
    seats: integer("seats", nullable),
    open: boolean("open", nullable),
    unit: one(
      "unit",
      { name: text("name", nullable), level: number("level", nullable), tags: many("tags", text("name")) },
      { optional: true },
    ),
    tags: many("tags", text("name")),
    members: many("members", {
      user: text("user", nullable),
      role: text("role", nullable),
      rank: integer("rank", nullable),
    }),
  },
});
