// Faults of the adapter that the oracle has to notice.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";

import type { where } from "../../src/prisma.js";

const SOURCE = new URL("../../src/prisma.js", import.meta.url);

const FAULTS: Readonly<Record<string, readonly (readonly [RegExp, string])[]>> = {
  "every is Prisma's own": [
    [/some \? body : complement\(body\)/, "body"],
    [/some \? "some" : "none"/, 'some ? "some" : "every"'],
  ],
  "nothing is an empty OR": [[/\{ \[described\.id\.field\]: \{ in: \[\] \} \}/, "{ OR: [] }"]],
  "a pattern is not escaped": [[/\.replaceAll\([^)]*\)/, ""]],
  "NULL is unequal": [[/isNull\(value, false\), isHeld\(value\), \.\.\.different/, "...different"]],
  "a field is compared with itself": [[/\[right\.column\.field\]/, "[left.column.field]"]],
  "an ordering is turned around": [[/"<": "lt"/, '"<": "gt"']],
  "or is and": [[/(case "any":\s+return )any\(/, "$1all("]],
  "an empty text is an organization": [[/blankIsAbsent: described\.type === "text"/, "blankIsAbsent: false"]],
  "no organization is inherited": [
    [/if \(own === null\)\s+return inherited;/, "return own === null ? false : then(own);"],
  ],
  "null is absent": [[/described\.nullIsValue \? "null" : "absent"/, '"absent"']],
  "a negated test is not": [[/return negated \? all\(\[there, [^;]*;/, "return found;"]],
  "the parent is not looked at": [
    [/parts\.push\(some \|\| !above\.optional \? found/, "parts.push(some || !above.optional ? false"],
  ],
};

export interface Mutant {
  readonly name: string;
  readonly where: typeof where;
}

/** The adapter with each of the faults. */
export async function mutants(): Promise<Mutant[]> {
  const source = readFileSync(SOURCE, "utf8");
  return Promise.all(
    Object.entries(FAULTS).map(async ([name, changes], index) => {
      let mutated = source;
      for (const [found, instead] of changes) {
        assert.match(mutated, found, name);
        mutated = mutated.replace(found, instead);
      }
      const file = new URL(`mutant${index}.js`, SOURCE);
      writeFileSync(file, mutated);
      const module = (await import(file.href)) as { where: typeof where };
      return { name, where: module.where };
    }),
  );
}
