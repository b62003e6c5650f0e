// Each query takes exactly the rows that a decision allows.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { PrismaPg } from "@prisma/adapter-pg";

import { FilterUnsupported, planFromJSON } from "../../src/plans.js";
import { where } from "../../src/prisma.js";
import { PrismaClient } from "./generated/client.js";
import { lessons } from "./lessons.js";
import { type Mutant, mutants } from "./mutants.js";

const ROOT = fileURLToPath(new URL("../../../../../../../", import.meta.url));
// A busy machine is slow.
const timeout = process.env["SOAK"] === undefined ? 600_000 : 20_000_000;

test("a query takes what a decision allows, and a wrong adapter is found out", { timeout }, async () => {
  const python = process.env["PDP_PYTHON"] ?? `${ROOT}.venv/bin/python`;
  const oracle = spawn(python, ["-m", "tests.kit.filters.prisma_oracle"], {
    cwd: ROOT,
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ended = new Promise((resolve) => oracle.once("exit", resolve));
  let unnoticed = await mutants();
  let prisma: PrismaClient | null = null;
  let last = "";
  try {
    for await (const line of createInterface(oracle.stdout)) {
      last = line;
      if (prisma === null) {
        prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString: line }) });
      } else if (line.startsWith("[")) {
        const plans = (JSON.parse(line) as unknown[]).map((plan) => JSON.stringify(plan));
        const answer = await taken(prisma, plans, where);
        const found: Mutant[] = [];
        for (const mutant of unnoticed) {
          // An error of the database is noticed too: LIKE '\\' without escaping.
          const other = await taken(prisma, plans, mutant.where).catch(String);
          if (other === answer) found.push(mutant);
        }
        unnoticed = found;
        // Last: the oracle then changes the rows.
        oracle.stdin.write(`${answer}\n`);
      }
    }
    assert.equal(await ended, 0);
  } finally {
    oracle.kill();
    await prisma?.$disconnect();
  }
  assert.deepEqual(
    unnoticed.map(({ name }) => name),
    [],
  );
  console.log(last);
});

/** For each plan the ids of the lessons that it takes, or why it cannot be expressed, as JSON. */
async function taken(prisma: PrismaClient, plans: string[], condition: typeof where): Promise<string> {
  const answers = plans.map(async (plan) => {
    try {
      const rows = await prisma.lesson.findMany({
        // As an application combines it.
        where: { AND: [condition(planFromJSON(plan), lessons, prisma.lesson.fields), { id: { not: "" } }] },
        select: { id: true },
        orderBy: { id: "asc" },
      });
      return rows.map((row) => row.id);
    } catch (error) {
      if (error instanceof FilterUnsupported) return error.message;
      throw error;
    }
  });
  return JSON.stringify(await Promise.all(answers));
}
