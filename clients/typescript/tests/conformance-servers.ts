// The servers of clients/conformance: a real PDP and a scripted one.

import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { Guard, type GuardOptions } from "../src/index.js";

/** The root of the repository; tests are run from build/tests. */
export const ROOT = fileURLToPath(new URL("../../../../", import.meta.url));

/** What the servers print about themselves, and how to end them. */
export interface Servers {
  readonly pdp: string;
  readonly scripted: string;
  readonly tls: { readonly target: string; readonly ca: string; readonly cert: string; readonly key: string };
  readonly api_key: string;
  readonly tokens: Readonly<Record<string, string>>;
  readonly http: string;
  readonly directory: string;
  stop(): Promise<void>;
}

/** Why the cases that need the servers are left out; false: they are not. */
export const SKIP = process.env["PDP_CONFORMANCE"] === "skip" && "PDP_CONFORMANCE=skip";

/** What `run.ts` has started for all files of tests. */
const SHARED = "PDP_CONFORMANCE_SERVERS";

/** The servers that are shared, or others, which end with this process at the latest. */
export async function startServers(): Promise<Servers> {
  const shared = process.env[SHARED];
  if (shared) return { ...JSON.parse(shared), stop: () => Promise.resolve() };
  const python = process.env["PDP_PYTHON"] ?? `${ROOT}.venv/bin/python`;
  const child = spawn(python, ["-m", "tests.conformance"], { cwd: ROOT, stdio: ["pipe", "pipe", "pipe"] });
  let said = "";
  child.stderr.on("data", (some) => {
    said += some;
  });
  const line = await new Promise<string>((resolve, reject) => {
    createInterface(child.stdout).once("line", resolve);
    child.once("error", reject);
    child.once("exit", () => reject(new Error(said)));
  }).catch((error: unknown) => {
    throw new Error(
      "the servers of the conformance tests do not start (they need the project's Python: `make install`, or name " +
        `one as PDP_PYTHON; PDP_CONFORMANCE=skip leaves these tests out): ${error}`,
    );
  });
  return { ...JSON.parse(line), stop: () => stopped(child) };
}

/** An environment in which tests share these servers. */
export function sharing(servers: Servers): NodeJS.ProcessEnv {
  return { ...process.env, [SHARED]: JSON.stringify(servers) };
}

function stopped(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    child.once("exit", () => resolve());
    child.stdin?.end();
  });
}

/** A file of cases that every language runs. */
export function cases<T>(name: string): T {
  return JSON.parse(readFileSync(`${ROOT}clients/conformance/${name}.json`, "utf8"));
}

/** A guard for tests that are not about time. */
export function patient(target: string, options: GuardOptions = {}): Guard {
  return new Guard(target, { deadlineMs: 10_000, ...options });
}
