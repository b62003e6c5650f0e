// Prisma under row-level security: who has rows, what is rolled back, and what a pooled connection remembers.

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { after, afterEach, before, suite, type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";

import { PrismaPg } from "@prisma/adapter-pg";

import { transaction } from "../../src/rls.js";
import { PrismaClient } from "./generated/client.js";

const ROOT = fileURLToPath(new URL("../../../../../../../", import.meta.url));
const IVAN = { user: "u1", session: "s1", organization: "o1" };
const MARIA = { user: "u2", session: "s2", organization: "o2" };
const PATIENT = { maxWait: 60_000, timeout: 60_000 };
const ids = { select: { id: true }, orderBy: { id: "asc" } } as const;

suite("under row-level security", () => {
  let database: ChildProcess;
  let urls: Record<"direct" | "transaction" | "statement", string>;
  let prisma: PrismaClient;

  // Two connections, so that each test meets those of the tests before it.
  const connect = (connectionString: string) =>
    new PrismaClient({ adapter: new PrismaPg({ connectionString, max: 2 }) });
  const found = (client: PrismaClient, actor: typeof IVAN) =>
    transaction(client, actor, (tx) => tx.lesson.findMany(ids), PATIENT);
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
    urls = JSON.parse((await lines.next()).value);
    prisma = connect(urls.direct);
  });

  after(async () => {
    await prisma.$disconnect();
    database.stdin?.end();
    await new Promise((resolve) => database.once("exit", resolve));
  });

  test("an actor has the rows that Check allows", async () => {
    assert.deepEqual(await found(prisma, IVAN), [{ id: "l1" }, { id: "l2" }]);
    assert.deepEqual(await found(prisma, MARIA), [{ id: "l3" }]);
  });

  test("many actors at once have their own rows each, on two connections", async () => {
    const rounds = Array.from({ length: 40 }, (_, round) => (round % 2 === 0 ? IVAN : MARIA));
    const found = await Promise.all(
      rounds.map((actor) => transaction(prisma, actor, (tx) => tx.lesson.count(), PATIENT)),
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

  suite("behind PgBouncer, whose clients share one connection", () => {
    let one: PrismaClient;
    let other: PrismaClient;

    const skipped = (context: TestContext) => {
      if (!urls.transaction) context.skip("there is no pgbouncer on the PATH: install Debian's package");
      return !urls.transaction;
    };

    afterEach(() => Promise.all([one, other].map((client) => client?.$disconnect())));

    test("in transaction mode actors of two applications have their own rows each", async (context) => {
      if (skipped(context)) return;
      [one, other] = [connect(urls.transaction), connect(urls.transaction)];
      const rounds = Array.from({ length: 12 }, (_, round) => round);
      const all = await Promise.all(
        rounds.map((round) => found(round % 4 < 2 ? one : other, round % 2 === 0 ? IVAN : MARIA)),
      );
      const [ofIvan, ofMaria] = [[{ id: "l1" }, { id: "l2" }], [{ id: "l3" }]];
      assert.deepEqual(
        all,
        rounds.map((round) => (round % 2 === 0 ? ofIvan : ofMaria)),
      );
      assert.deepEqual([await one.lesson.count(), await other.lesson.count()], [0, 0]);
    });

    test("in transaction mode an actor ends with a transaction that fails", async (context) => {
      if (skipped(context)) return;
      [one, other] = [connect(urls.transaction), connect(urls.transaction)];
      const failing = transaction(one, IVAN, async (tx) => tx.$queryRaw`SELECT 1 / 0`, PATIENT);
      await assert.rejects(failing, /division by zero/);
      assert.equal(await other.lesson.count(), 0);
    });

    test("an actor that is set for the session goes to the next client", async (context) => {
      if (skipped(context)) return;
      [one, other] = [connect(urls.transaction), connect(urls.transaction)];
      await one.$executeRaw`SELECT set_config('pdp.actor', ${JSON.stringify(IVAN)}, false)`;
      try {
        assert.equal(await other.lesson.count(), 2);
      } finally {
        await other.$executeRaw`RESET pdp.actor`;
      }
      assert.equal(await one.lesson.count(), 0);
    });

    test("in statement mode a transaction is refused, and without a transaction there are no rows", async (context) => {
      if (skipped(context)) return;
      [one, other] = [connect(urls.statement), connect(urls.statement)];
      await assert.rejects(found(one, IVAN), /transaction blocks not allowed/);
      const bind = one.$executeRaw`SELECT set_config('pdp.actor', ${JSON.stringify(IVAN)}, true)`;
      await assert.rejects(one.$transaction([bind, one.lesson.count()]));
      await one.$executeRaw`SELECT set_config('pdp.actor', ${JSON.stringify(IVAN)}, true)`;
      assert.deepEqual([await one.lesson.count(), await other.lesson.count()], [0, 0]);
    });
  });
});
