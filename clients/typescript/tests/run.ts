// Runs all files of tests beside the same servers: to start them takes longer than most files.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";

import { SKIP, sharing, startServers } from "./conformance-servers.js";

const TESTS = "build/tests/";

const servers = SKIP ? null : await startServers();
const files = readdirSync(TESTS).filter((name) => name.endsWith(".test.js"));
const tests = spawn("node", ["--test", "--test-timeout=600000", ...files.map((name) => TESTS + name)], {
  env: servers ? sharing(servers) : process.env,
  stdio: "inherit",
});
const [status] = await once(tests, "exit");
await servers?.stop();
process.exitCode = status ?? 1;
