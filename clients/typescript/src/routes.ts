// Route maps: what a request needs, by its method and its path, as docs/guards.md says. Pure: does not need Node.

import { RouteRefused } from "./errors.js";
import { type Path, readPath } from "./route-path.js";
import { ANY_METHOD, type Asked, PUBLIC, type Requirement, Route, RouteWrong } from "./route-pattern.js";
import { Node, type RouteProblem } from "./route-tree.js";
import { nameOf } from "./values.js";

export { type Asked, type Needs, PUBLIC, type Requirement } from "./route-pattern.js";
export type { RouteProblem } from "./route-tree.js";
export { RouteRefused };

/** The most routes of a map. */
export const ROUTES_MAX = 10_000;
const PROBLEMS_MAX = 100;
const SHOWN_MAX = 300;

/** The map is invalid. Names the problem of each route, at most 100. */
export class RouteMapInvalid extends Error {
  override readonly name = "RouteMapInvalid";
  readonly problems: readonly RouteProblem[];

  constructor(problems: readonly RouteProblem[]) {
    super(problems.map(shown).join("; "));
    this.problems = problems;
  }
}

/** A route map. It is immutable. */
export class Routes {
  readonly #root = new Node();

  /**
   * Makes a map from routes, such as `GET /courses/{id}`, and their requirements: a permission, `public`, or both a
   * permission and a resource.
   *
   * Throws TypeError for a value that is not an object, and RouteMapInvalid: a route is malformed, or two routes
   * could match the same path and neither is more specific.
   */
  constructor(routes: Readonly<Record<string, Requirement>>) {
    if (typeof routes !== "object" || routes === null || routes instanceof Map) {
      throw new TypeError(`the routes are an object, not ${nameOf(routes)}`);
    }
    const problems: RouteProblem[] = [];
    for (const problem of this.#problems(Object.entries(routes))) {
      problems.push(problem);
      if (problems.length === PROBLEMS_MAX) break;
    }
    if (problems.length > 0) throw new RouteMapInvalid(problems);
  }

  /**
   * The requirement of a request, by its method and path as they were received: the path neither decoded nor
   * cleaned. It may have a query.
   *
   * Throws RouteRefused: no route matches it (`no_route`), or the path is ambiguous (`ambiguous_path`).
   */
  match(method: string, path: string): Asked | typeof PUBLIC {
    const read = readPath(path);
    const found = this.#candidates(method, read);
    let match: Candidate | null = null;
    for (const candidate of found) {
      if (candidate.route.takes(read) && (match === null || compare(candidate, match) > 0)) match = candidate;
    }
    if (match === null) throw new RouteRefused("no_route");
    const asked = match.route.asks(read);
    for (const other of found) {
      // A program that reads the path less carefully might apply this route.
      if (compare(other, match) >= 0 && !isSame(other.route.asks(read), asked)) {
        throw new RouteRefused("ambiguous_path");
      }
    }
    return asked;
  }

  #candidates(method: string, path: Path): Candidate[] {
    const methods = methodsOf(method);
    const found: Candidate[] = [];
    for (const ends of this.#root.couldTake(path)) {
      methods.forEach((named, place) => {
        for (const route of ends.get(named) ?? []) found.push({ route, weight: methods.length - place });
      });
    }
    return found;
  }

  *#problems(routes: readonly [string, Requirement][]): Generator<RouteProblem> {
    const [tooMany] = routes.slice(ROUTES_MAX);
    if (tooMany !== undefined) {
      yield { routes: [tooMany[0]], text: `is one too many: a map has at most ${ROUTES_MAX} routes` };
      return;
    }
    for (const [text, requirement] of routes) {
      let route: Route;
      try {
        route = new Route(text, requirement);
      } catch (error) {
        if (!(error instanceof RouteWrong)) throw error;
        yield { routes: [text], text: error.message };
        continue;
      }
      yield* this.#root.add(route);
    }
    yield* this.#root.conflicts();
  }
}

/** A route that could match a path, and how well its method fits. */
interface Candidate {
  readonly route: Route;
  readonly weight: number;
}

function compare(left: Candidate, right: Candidate): number {
  if (left.route.rank !== right.route.rank) return left.route.rank < right.route.rank ? -1 : 1;
  return left.weight - right.weight;
}

/** The route methods that match a request, the best first. */
function methodsOf(method: string): readonly string[] {
  if (method === "HEAD") return ["HEAD", "GET", ANY_METHOD];
  return method === ANY_METHOD ? [ANY_METHOD] : [method, ANY_METHOD];
}

function isSame(left: Asked | typeof PUBLIC, right: Asked | typeof PUBLIC): boolean {
  if (left === PUBLIC || right === PUBLIC) return left === right;
  return (
    left.permission === right.permission &&
    left.resource?.type === right.resource?.type &&
    left.resource?.id === right.resource?.id
  );
}

function shown({ routes, text }: RouteProblem): string {
  return `${routes.map((route) => JSON.stringify(route.slice(0, SHOWN_MAX))).join(" and ")}: ${text}`;
}
