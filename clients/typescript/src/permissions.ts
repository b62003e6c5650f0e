// What somebody may, for user interfaces to show. It guards nothing, and needs nothing of Node.

import type { Decision, Question, ResourceRef } from "./values.js";

/** What holds, for a front end. */
export interface Held {
  readonly permission: string;
  /** Of the resource, with `id`; neither: without one. */
  readonly type?: string;
  readonly id?: string;
}

/** Which permissions hold, of those that `can` or `permissions` asked for. No other does. */
export class PermissionSet {
  readonly #held: ReadonlyMap<string, Held>;

  /** Throws TypeError for what is no list as `toJSON` gives it. */
  constructor(held: Iterable<Held> = []) {
    this.#held = new Map([...held].map((one) => [keyOf(one.permission, resourceOf(one)), one]));
  }

  /** The set that a front end was given: what `toJSON` gave. Throws TypeError for anything else. */
  static fromJSON(json: unknown): PermissionSet {
    if (!Array.isArray(json)) throw new TypeError("a set of permissions is a list in JSON");
    return new PermissionSet(json);
  }

  /** Whether the permission holds on the resource, of which type and id count; null: without one. */
  holds(permission: string, resource: ResourceRef | null = null): boolean {
    return this.#held.has(keyOf(permission, resource));
  }

  /** What holds: a list of `{permission}` and, where there is a resource, `type` and `id`. */
  toJSON(): Held[] {
    return [...this.#held.values()].sort(
      (one, other) =>
        compare(one.permission, other.permission) ||
        compare(one.type ?? "", other.type ?? "") ||
        compare(one.id ?? "", other.id ?? ""),
    );
  }
}

/** A question that is asked twice, with other attributes, holds where both do. */
export function permissionSet(questions: readonly Question[], decisions: readonly Decision[]): PermissionSet {
  const asked = new Map<string, Held>();
  const denied = new Set<string>();
  questions.forEach(({ permission, resource }, index) => {
    const key = keyOf(permission, resource ?? null);
    asked.set(key, resource ? { permission, type: resource.type, id: resource.id } : { permission });
    if (decisions[index]?.allowed !== true) denied.add(key);
  });
  return new PermissionSet([...asked].filter(([key]) => !denied.has(key)).map(([, held]) => held));
}

function resourceOf({ type, id }: Held): ResourceRef | null {
  return type === undefined && id === undefined ? null : ({ type, id } as ResourceRef);
}

function keyOf(permission: string, resource: ResourceRef | null): string {
  const parts = resource === null ? [permission] : [permission, resource.type, resource.id];
  if (!parts.every((part) => typeof part === "string")) {
    throw new TypeError("a permission is a string, and a resource has the strings type and id");
  }
  return JSON.stringify(parts);
}

function compare(one: string, other: string): number {
  return one < other ? -1 : Number(one > other);
}
