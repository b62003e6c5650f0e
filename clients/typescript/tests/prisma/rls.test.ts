// Prisma under row-level security: who has rows, what is rolled back, and what a pooled connection remembers.

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { after, before, suite, test } from "node:test";
import { fileURLToPath } from "node:url";

import { PrismaPg } from "@prisma/adapter-pg";

import { transaction } from "../../src/rls.js";
import { PrismaClient } from "./generated/client.js";

const ROOT = fileURLToPath(new URL("../../../../../../../", import.meta.url));
const IVAN = { user: "u1", session: "s1", organization: "o1" };
const MARIA = { user: "u2", session: "s2", organization: "o2" };
const ids = { select: { id: true }, orderBy: { id: "asc" } } as const;

suite("under row-level security", () => {
  let database: ChildProcess;
  let prisma: PrismaClient;

  const titles = async (actor = IVAN) =>
    transaction(prisma, actor, async (tx) =>
      (await tx.lesson.findMany({ orderBy: { id: "asc" } })).map((row) => row.title),
    );

  before(async () => {
    const python = process.env["PDP_PYTHON"] ?? `${ROOT}.venv/bin/python`;
    database = spawn(python, ["-m", "tests.kit.rls.school_database"], {
      cwd: ROOT,
      stdio: ["pipe", "pipe", "inherit"],
    });
    const lines = createInterface(database.stdout as NodeJS.ReadableStream)[Symbol.asyncIterator]();
    const { value: connectionString } = await lines.next();
    // Two connections, so that each test meets those of the tests before it.
    prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString, max: 2 }) });
  });

  after(async () => {
    await prisma.$disconnect();
    database.stdin?.end();
    await new Promise((resolve) => database.once("exit", resolve));
  });

  test("an actor has the rows that Check allows", async () => {
    const found = (actor: typeof IVAN) => transaction(prisma, actor, (tx) => tx.lesson.findMany(ids));
    assert.deepEqual(await found(IVAN), [{ id: "l1" }, { id: "l2" }]);
    assert.deepEqual(await found(MARIA), [{ id: "l3" }]);
  });

  test("many actors at once have their own rows each, on two connections", async () => {
    const rounds = Array.from({ length: 40 }, (_, round) => (round % 2 === 0 ? IVAN : MARIA));
    const found = await Promise.all(
      rounds.map((actor) => transaction(prisma, actor, (tx) => tx.lesson.count(), { maxWait: 30_000 })),
    );
    assert.deepEqual(
      found,
      rounds.map((actor) => (actor === IVAN ? 2 : 1)),
    );
  });

  test("outside of a transaction no row is visible, even on a connection that was bound to an actor before", async () => {
    for (let round = 0; round < 4; round++) assert.equal(await prisma.lesson.count(), 0);
    await assert.rejects(prisma.lesson.create({ data: { id: "l9", organizationId: "o1" } }), /row-level security/);
  });

  test("a query of the client within a transaction has no actor", async () => {
    const [inside, beside] = await transaction(prisma, IVAN, async (tx) => [
      await tx.lesson.count(),
      await prisma.lesson.count(),
    ]);
    assert.deepEqual([inside, beside], [2, 0]);
  });

  test("what fails is rolled back as a whole", async () => {
    const failing = transaction(prisma, IVAN, async (tx) => {
      await tx.lesson.updateMany({ data: { title: "changed" } });
      throw new Error("too late");
    });
    await assert.rejects(failing, /too late/);
    assert.deepEqual(await titles(), [null, null]);
  });

  test("a row is not moved to another organization", async () => {
    const moved = transaction(prisma, IVAN, (tx) =>
      tx.lesson.update({ where: { id: "l1" }, data: { organizationId: "o2" } }),
    );
    await assert.rejects(moved, /row-level security/);
    const hidden = transaction(prisma, IVAN, (tx) =>
      tx.lesson.update({ where: { id: "l3" }, data: { title: "x" } }),
    );
    await assert.rejects(hidden, { code: "P2025" }); // not found
  });

  test("the trap: an extension with a batch for each query commits within a transaction that is rolled back", async () => {
    const extended = prisma.$extends({
      query: {
        $allOperations: async ({ args, query }) => {
          const bind = prisma.$executeRaw`SELECT set_config('pdp.actor', ${JSON.stringify(IVAN)}, true)`;
          return (await prisma.$transaction([bind, query(args) as typeof bind]))[1];
        },
      },
    });
    const failing = extended.$transaction(async (tx) => {
      await tx.lesson.updateMany({ data: { title: "kept by mistake" } });
      throw new Error("too late");
    });
    await assert.rejects(failing, /too late/);
    const kept = await titles();
    await transaction(prisma, IVAN, (tx) => tx.lesson.updateMany({ data: { title: null } }));
    assert.deepEqual(kept, ["kept by mistake", "kept by mistake"]);
  });

  test("an actor without a user or a session is refused", async () => {
    for (const actor of [
      { ...IVAN, user: "" },
      { ...IVAN, session: undefined as unknown as string },
    ]) {
      await assert.rejects(
        transaction(prisma, actor, (tx) => tx.lesson.count()),
        TypeError,
      );
    }
  });
});
