import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { ROOT } from "./conformance-servers.js";

const FOLDER = `${ROOT}clients/typescript/`;
const GUARD = 'import type { Guard } from "pdp-client"; declare const guard: Guard;';
/** What stands before the example under a heading. */
const BEFORE: Readonly<Record<string, string>> = {
  "# pdp-client for TypeScript": "",
  "## Express": "",
  "## Hono": "",
  "## With Clerk's SDKs": `${GUARD} declare const req: Parameters<typeof getAuth>[0];
    const course = { type: "course", id: "1" };`,
};

test("the examples of the README are typed as it says", (t) => {
  const readme = readFileSync(`${FOLDER}README.md`, "utf8");
  const directory = mkdtempSync(join(FOLDER, "build", "readme-"));
  t.after(() => rmSync(directory, { recursive: true }));
  for (const section of readme.split(/^(?=##? )/m)) {
    const heading = section.slice(0, section.indexOf("\n"));
    const example = /^```ts\n(.*?)^```/ms.exec(section)?.[1];
    const before = BEFORE[heading];
    if (before === undefined) continue;
    assert.ok(example, heading);
    const text = `${before}\n${example}\nexport {};\n`.replaceAll(
      /"pdp-client(?:\/(\w+))?"/g,
      (_, name = "index") => `"../../src/${name}.js"`,
    );
    writeFileSync(join(directory, `${heading.replaceAll(/\W/g, "")}.ts`), text);
  }
  const config = {
    extends: "../../tsconfig.json",
    compilerOptions: { rootDir: "../..", noEmit: true, noUnusedLocals: false },
    include: ["."],
    exclude: [],
  };
  writeFileSync(join(directory, "tsconfig.json"), JSON.stringify(config));
  const { status, stdout } = spawnSync(`${FOLDER}node_modules/.bin/tsc`, ["-p", directory], { encoding: "utf8" });
  assert.equal(status, 0, stdout);
});

test("the README of the example names what its files use", () => {
  const folder = `${ROOT}examples/next-courses/`;
  const rows = readFileSync(`${folder}README.md`, "utf8").matchAll(/^\| (?:what|a|an) .*?\| (.*) \| (.*) \|$/gm);
  let names = 0;
  for (const [, files = "", guards = ""] of rows) {
    const links = [...files.matchAll(/\]\(([^)]+)\)/g)];
    const texts = links.map(([, file]) => readFileSync(`${folder}${file}`, "utf8"));
    // `lib/guard.ts` stands between pages and `pdp.require`.
    const text = [...texts, readFileSync(`${folder}lib/guard.ts`, "utf8")].join();
    for (const [, name = ""] of guards.matchAll(/`([^`]+)`/g)) {
      assert.ok(text.includes(name.replace(/>$/, "")), `${name} is not in ${files}`);
      names++;
    }
  }
  assert.equal(names, 9);
});
