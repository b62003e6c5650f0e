import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { ROOT } from "./conformance-servers.js";

const FOLDER = `${ROOT}clients/typescript/`;
const GUARD = 'import type { Guard } from "pdp-client"; declare const guard: Guard;';

test("the examples for Next.js and React in the README are typed as it says", (t) => {
  const readme = readFileSync(`${FOLDER}README.md`, "utf8");
  const [, section = ""] = /^## Next\.js and React$(.*?)^## /ms.exec(readme) ?? [];
  const examples = [...section.matchAll(/^```(tsx?)\n(.*?)^```/gms)];
  assert.equal(examples.length, 4);
  const directory = mkdtempSync(join(FOLDER, "build", "readme-next-"));
  t.after(() => rmSync(directory, { recursive: true }));
  examples.forEach(([, ending, example = ""], index) => {
    const before = example.includes("new Guard(") ? "" : GUARD;
    const text = `${before}\n${example}`.replaceAll(
      /"pdp-client(\/[\w/]+)?"/g,
      (_, name = "/index") => `"../../src/${name.slice(1).replace("/", "-")}.js"`,
    );
    writeFileSync(join(directory, `example-${index}.${ending}`), text);
  });
  const config = {
    extends: "../../tsconfig.json",
    compilerOptions: { rootDir: "../..", noEmit: true },
    include: ["."],
    exclude: [],
  };
  writeFileSync(join(directory, "tsconfig.json"), JSON.stringify(config));
  const { status, stdout } = spawnSync(`${FOLDER}node_modules/.bin/tsc`, ["-p", directory], { encoding: "utf8" });
  assert.equal(status, 0, stdout);
});
