// Parses a route, `GET /courses/{id}` or `/admin/**`, and its requirement.

import type { Path } from "./route-path.js";
import { nameOf, type ResourceRef } from "./values.js";

/** A public route: every request passes, without a token and without an actor. */
export const PUBLIC = "public";

/** The requirement of a route. A text is the permission, or `public`. */
export type Requirement = string | Needs;

/** A permission that a request needs. */
export interface Needs {
  /** `resource-type:action`, for example `course:view`. */
  readonly permission: string;
  /** `type/{variable}`: the variable of the path that has the id of the resource. */
  readonly resource?: string;
}

/** The question of a request. */
export interface Asked {
  readonly permission: string;
  /** Its id is percent-decoded once. Null: the permission needs none. */
  readonly resource: ResourceRef | null;
}

const ROUTE_CHARACTERS_MAX = 256;
const NAME_CHARACTERS_MAX = 128;
const METHOD = /^[A-Z][A-Z0-9_-]*$/;
const LITERAL = /^[A-Za-z0-9\-._~!$&'()+,=:@]+$/;
const VARIABLE = /^\{([A-Za-z_][A-Za-z0-9_]*)\}$/;
const PERMISSION = /^[a-z][a-z0-9_.-]*:[a-z][a-z0-9_.-]*$/;
const RESOURCE = /^([a-z][a-z0-9_.-]*)\/(\{.*\})$/s;
const NEEDS_NAMES = new Set(["permission", "resource"]);
/** The method of a route that names none. */
export const ANY_METHOD = "";

/** A route of a map. */
export class Route {
  /** The method; empty: all. */
  readonly method: string;
  /** Literals, and null for a variable. */
  readonly segments: readonly (string | null)[];
  /** Whether it ends with `**`. */
  readonly rest: boolean;
  /** Whether it ends with a slash. The slash of `/`, which has no segments, counts. */
  readonly slash: boolean;
  /**
   * How specific the route is: among routes that match the same path, the greatest rank applies. Per segment, 2 is
   * a literal, 1 a variable, and `**` is nothing; the 0 at the end means that the route ends there.
   */
  readonly rank: string;
  /** Null: it is public. */
  readonly #permission: string | null;
  /** The type of the resource, and the index of the segment with its id. */
  readonly #resource: { readonly type: string; readonly place: number } | null;

  /** Throws RouteWrong with a sentence about the problem. */
  constructor(
    readonly text: string,
    requirement: Requirement,
  ) {
    if ([...text].length > ROUTE_CHARACTERS_MAX)
      throw new RouteWrong(`has more than ${ROUTE_CHARACTERS_MAX} characters`);
    const space = text.lastIndexOf(" ");
    this.method = space < 0 ? ANY_METHOD : text.slice(0, space);
    if (space >= 0 && !METHOD.test(this.method)) {
      throw new RouteWrong("must be a path such as /courses/{id}, or GET and one space before it");
    }
    const path = text.slice(space + 1);
    if (!path.startsWith("/")) throw new RouteWrong("its path must begin with /");
    const parts = path.slice(1).split("/");
    this.rest = parts.at(-1) === "**";
    this.slash = parts.at(-1) === "";
    if (this.rest || this.slash) parts.pop();
    const variables = new Map<string, number>();
    this.segments = parts.map((part, place) => {
      const name = VARIABLE.exec(part)?.[1];
      if (name === undefined) return literalOf(part);
      if (variables.has(name)) throw new RouteWrong(`names the variable ${part} twice`);
      variables.set(name, place);
      return null;
    });
    this.rank = this.segments.map((segment) => (segment === null ? "1" : "2")).join("") + (this.rest ? "" : "0");
    const needs = needsOf(requirement);
    this.#permission = needs === null ? null : needs.permission;
    this.#resource = needs === null ? null : resourceOf(needs, variables);
  }

  /** Whether it matches a path that it could match. */
  takes(path: Path): boolean {
    return (
      (this.rest || this.slash === path.slash) &&
      this.segments.every((literal, place) => literal === null || literal === path.sent[place])
    );
  }

  /** The requirement of a request for a path that it could match. */
  asks(path: Path): Asked | typeof PUBLIC {
    if (this.#permission === null) return PUBLIC;
    const { type, place } = this.#resource ?? { type: "", place: -1 };
    const resource = this.#resource && { type, id: path.decoded[place] as string };
    return { permission: this.#permission, resource };
  }

  /** Whether both have the same requirement for every path; their variables have the same indexes. */
  asksAs(other: Route): boolean {
    return (
      this.#permission === other.#permission &&
      this.#resource?.type === other.#resource?.type &&
      this.#resource?.place === other.#resource?.place
    );
  }

  /** Whether both match the same paths; they are at the same node of the tree. */
  isAs(other: Route): boolean {
    return this.slash === other.slash && this.segments.every((segment, place) => segment === other.segments[place]);
  }
}

/** The problem of a route, as a sentence. */
export class RouteWrong extends Error {}

function literalOf(part: string): string {
  if (part === "") throw new RouteWrong("has an empty segment");
  if (part.includes("*")) {
    throw new RouteWrong("a * is only at the end, as **; one segment is a variable: {name}");
  }
  if (part.startsWith(":")) throw new RouteWrong(`a variable is written {name}, not ${part}`);
  if (part === "." || part === "..") {
    throw new RouteWrong("has a segment . or .., and every request for one is refused");
  }
  if (!LITERAL.test(part)) {
    throw new RouteWrong(
      `the segment ${JSON.stringify(part)} is neither a variable {name} nor letters, digits and -._~!$&'()+,=:@`,
    );
  }
  return part;
}

/** Null: it is public. */
function needsOf(requirement: Requirement): Needs | null {
  if (requirement === PUBLIC) return null;
  const needs = typeof requirement === "string" ? { permission: requirement } : requirement;
  if (typeof needs !== "object" || needs === null || Array.isArray(needs)) {
    throw new RouteWrong(`must need a permission, or be public, not ${nameOf(needs)}`);
  }
  // With `resources` for `resource` the question would have no resource.
  const unknown = Object.keys(needs).find((name) => !NEEDS_NAMES.has(name));
  if (unknown !== undefined) throw new RouteWrong(`needs a permission and a resource, not ${unknown}`);
  if (!fits(PERMISSION, needs.permission)) {
    throw new RouteWrong(`${JSON.stringify(needs.permission)} is not a permission such as course:view`);
  }
  return needs;
}

function resourceOf(needs: Needs, variables: ReadonlyMap<string, number>): { type: string; place: number } | null {
  if (!Object.hasOwn(needs, "resource")) return null;
  const [, type, variable] = (fits(RESOURCE, needs.resource) && RESOURCE.exec(needs.resource)) || [];
  if (type === undefined || variable === undefined) {
    throw new RouteWrong(`${JSON.stringify(needs.resource)} is not a resource such as course/{id}`);
  }
  const place = variables.get(variable.slice(1, -1));
  if (place === undefined) throw new RouteWrong(`the path has no variable ${variable}`);
  return { type, place };
}

function fits(grammar: RegExp, text: unknown): text is string {
  return typeof text === "string" && [...text].length <= NAME_CHARACTERS_MAX && grammar.test(text);
}
