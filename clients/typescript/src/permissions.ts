// Permissions of an actor, for display in user interfaces. They guard nothing. Does not need Node.

import type { Decision, Question, ResourceRef } from "./values.js";

/** An allowed permission, for a front end. */
export interface Held {
  readonly permission: string;
  /** Type of the resource, together with `id`; neither: no resource. */
  readonly type?: string;
  readonly id?: string;
}

/** The allowed permissions among those that `can` or `permissions` asked for. No other permission holds. */
export class PermissionSet {
  readonly #held: ReadonlyMap<string, Held>;

  /** Throws TypeError for anything but a list as `toJSON` returns it. */
  constructor(held: Iterable<Held> = []) {
    this.#held = new Map([...held].map((entry) => [keyOf(entry.permission, resourceOf(entry)), entry]));
  }

  /** The set from the result of `toJSON`, in a front end. Throws TypeError for anything else. */
  static fromJSON(json: unknown): PermissionSet {
    if (!Array.isArray(json)) throw new TypeError("a set of permissions is a list in JSON");
    return new PermissionSet(json);
  }

  /** Whether the permission holds on a resource with this type and id; null: without a resource. */
  holds(permission: string, resource: ResourceRef | null = null): boolean {
    return this.#held.has(keyOf(permission, resource));
  }

  /** The allowed permissions: a list of `{permission}` and, if there is a resource, `type` and `id`. */
  toJSON(): Held[] {
    return [...this.#held.values()].sort(
      (left, right) =>
        compare(left.permission, right.permission) ||
        compare(left.type ?? "", right.type ?? "") ||
        compare(left.id ?? "", right.id ?? ""),
    );
  }
}

/** If two questions differ only in attributes, both must be allowed. */
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

function compare(left: string, right: string): number {
  return left < right ? -1 : Number(left > right);
}
