// The processes that the tests start: a PDP and the application. Both end with this process at the latest, however it
// ends: each ends when its stdin is closed.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, openSync } from "node:fs";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** The application; tests are run from build/tests. */
export const APP = fileURLToPath(new URL("../../", import.meta.url));
const REPOSITORY = fileURLToPath(new URL("../../../../", import.meta.url));
const START_MS = 60_000;
// SIGTERM to the server alone, once nobody holds the pipe any more.
const UNTIL_STDIN_ENDS = 'node "$@" & pid=$!; read _; kill "$pid"; wait "$pid"';

export interface Pdp {
  readonly target: string;
  readonly apiKey: string;
  /** The URL of the application's own database. */
  readonly database: string;
  readonly tokens: Readonly<Record<"admin" | "instructor" | "student" | "expired", string>>;
  /** The decision of the audit log that has this id. */
  recorded(decisionId: string): Promise<Record<string, unknown> | undefined>;
  stop(): Promise<void>;
  end(): Promise<void>;
}

export async function startPdp(): Promise<Pdp> {
  const python = process.env.PDP_PYTHON ?? `${REPOSITORY}.venv/bin/python`;
  const child = spawn(python, [`${APP}tests/server.py`], {
    cwd: REPOSITORY,
    env: { ...process.env, PYTHONPATH: REPOSITORY },
    stdio: ["pipe", "pipe", "inherit"],
  });
  const said = createInterface(child.stdout)[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await said.next();
    if (done) throw new Error(`the PDP ended: it needs the project's Python (make install), or PDP_PYTHON`);
    return JSON.parse(value);
  };
  const tell = (line: string[]) => {
    child.stdin.write(`${JSON.stringify(line)}\n`);
    return next();
  };
  const { pdp, api_key, tokens, database } = await next();
  return {
    target: pdp,
    apiKey: api_key,
    tokens,
    database,
    async recorded(decisionId) {
      const { status, stdout, stderr } = await tell(["audit", "list", "--json", "--limit", "1000"]);
      if (status !== 0) throw new Error(stderr);
      const records: Record<string, unknown>[] = stdout.split("\n").filter(Boolean).map(JSON.parse);
      return records.find((one) => one["decision_id"] === decisionId);
    },
    stop: () => tell(["stop"]),
    end: () => ended(child),
  };
}

export interface Application {
  readonly port: number;
  readonly url: string;
  end(): Promise<void>;
}

/** `next start` of what `next build` has made. What it says is in build/application.log. */
export async function startApplication(pdp: Pdp): Promise<Application> {
  const port = await freePort();
  const next = [`${APP}node_modules/next/dist/bin/next`, "start", "--hostname", "127.0.0.1", "--port", `${port}`];
  mkdirSync(`${APP}build`, { recursive: true });
  const log = openSync(`${APP}build/application.log`, "w");
  const child = spawn("sh", ["-c", UNTIL_STDIN_ENDS, "sh", ...next], {
    cwd: APP,
    env: {
      ...process.env,
      NEXT_TELEMETRY_DISABLED: "1",
      DATABASE_URL: pdp.database,
      PDP_SERVER: pdp.target,
      PDP_API_KEY: pdp.apiKey,
      PDP_DEADLINE_MS: "3000", // a slow machine must not change what a test is about
    },
    stdio: ["pipe", log, log],
  });
  const url = `http://127.0.0.1:${port}`;
  await eventually("the application answers", async () => {
    if (child.exitCode !== null) throw new Error("the application ended before it was ready");
    const answer = await fetch(`${url}/icon.svg`, { signal: AbortSignal.timeout(5_000) }).catch(() => null);
    return answer?.ok === true;
  });
  return { port, url, end: () => ended(child) };
}

/** Returns once a condition holds; throws after a minute. */
async function eventually(what: string, holds: () => Promise<boolean>): Promise<void> {
  const ends = performance.now() + START_MS;
  while (!(await holds())) {
    if (performance.now() > ends) throw new Error(`did not happen within ${START_MS} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, "exit");
  child.stdin?.end();
  await exit;
}

/** Below the ports that the system gives to outgoing connections: one of these would be taken by another process. */
async function freePort(): Promise<number> {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 22_000);
    const probe = createServer();
    const free = await new Promise<boolean>((resolve) => {
      probe.once("error", () => resolve(false));
      probe.listen(port, "127.0.0.1", () => resolve(true));
    });
    if (!free) continue;
    await new Promise((resolve) => probe.close(resolve));
    return port;
  }
}
