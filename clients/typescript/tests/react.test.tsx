import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import type { ReactNode } from "react";
import { renderToStaticMarkup } from "react-dom/server";

import { PermissionSet } from "../src/index.js";
import { Can, type Held, PermissionsProvider, usePermissions } from "../src/react.js";

const algebra = { type: "course", id: "algebra" };
const held = new PermissionSet([
  { permission: "course:create" },
  { permission: "course:edit", type: "course", id: "algebra" },
]).toJSON();

function shown(children: ReactNode, permissions: readonly Held[] = held): string {
  return renderToStaticMarkup(<PermissionsProvider permissions={permissions}>{children}</PermissionsProvider>);
}

function Answers(): ReactNode {
  const permissions = usePermissions();
  return [permissions.holds("course:edit", algebra), permissions.holds("course:delete", algebra)].join();
}

test("what holds is shown, with and without a resource", () => {
  assert.equal(shown(<Can permission="course:create">Create</Can>), "Create");
  assert.equal(
    shown(
      <Can permission="course:edit" resource={algebra} fallback="Read">
        Edit
      </Can>,
    ),
    "Edit",
  );
});

test("what was not asked does not hold, and the fallback is shown", () => {
  const others = [
    { permission: "course:delete" },
    { permission: "course:edit" },
    { permission: "course:edit", resource: { type: "course", id: "biology" } },
    { permission: "course:edit", resource: { type: "lesson", id: "algebra" } },
    { permission: "course:create", resource: algebra },
    { permission: "Course:create" },
    { permission: "" },
  ];
  for (const other of others) {
    assert.equal(
      shown(
        <Can {...other} fallback={<i>no</i>}>
          yes
        </Can>,
      ),
      "<i>no</i>",
    );
    assert.equal(shown(<Can {...other}>yes</Can>), "");
  }
});

test("nothing holds in the empty set", () => {
  assert.equal(shown(<Can permission="course:create">Create</Can>, []), "");
});

test("the inner one of two sets counts", () => {
  const inner = (
    <PermissionsProvider permissions={[]}>
      <Can permission="course:create">Create</Can>
    </PermissionsProvider>
  );
  assert.equal(shown(inner), "");
});

test("a component may ask the set by itself", () => {
  assert.equal(shown(<Answers />), "true,false");
});

test("a set that is missing or none is a mistake, not a no", () => {
  assert.throws(() => renderToStaticMarkup(<Can permission="course:create">Create</Can>), /PermissionsProvider/);
  for (const none of [null, {}, "course:create", [{}], [{ permission: 1 }], [null]]) {
    assert.throws(() => shown("", none as unknown as Held[]), TypeError);
  }
});

test("it is a module of client components, and brings nothing of Node to a browser", () => {
  const source = readFileSync(new URL("../src/react.js", import.meta.url), "utf8");
  assert.match(source, /^"use client";/);
  const imported = [...source.matchAll(/from "([^"]+)"/g)].map(([, name]) => name);
  assert.deepEqual(imported.sort(), ["./permissions.js", "react", "react/jsx-runtime"]);
  const permissions = readFileSync(new URL("../src/permissions.js", import.meta.url), "utf8");
  assert.doesNotMatch(permissions, /^import/m);
});
