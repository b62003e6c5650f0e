// The routes of a map as a tree, and which of them do not go together.

import { fold, type Path } from "./route-path.js";
import { ANY_METHOD, type Route } from "./route-pattern.js";

/** Of judging a map: seconds. No map that people write comes near; and none is to stop a server. */
const STEPS_MAX = 200_000;

/** Routes that end at one place, by method. Those of one method differ in letter case or a slash. */
export type Ends = Map<string, Route[]>;

/** What is wrong with one route, or with two that do not go together. */
export interface RouteProblem {
  readonly routes: readonly string[];
  readonly text: string;
}

/** Where routes part. Letter case does not count here, and neither does a slash at the end. */
export class Node {
  literals = new Map<string, Node>();
  variable: Node | null = null;
  ends: Ends = new Map();
  /** Those that go on with `**`. */
  rests: Ends = new Map();
  /** Of all routes that end here or below. */
  methods = new Set<string>();

  /** Puts a route into the tree of this root. Yields what is wrong with it and those that are at the same place. */
  *add(route: Route): Generator<RouteProblem> {
    let node: Node = this;
    this.methods.add(route.method);
    for (const segment of route.segments) {
      if (segment === null) {
        node.variable ??= new Node();
        node = node.variable;
      } else {
        node = madeIn(node.literals, fold(segment), () => new Node());
      }
      node.methods.add(route.method);
    }
    const others = madeIn(route.rest ? node.rests : node.ends, route.method, () => []);
    for (const other of others) {
      const routes = [other.text, route.text];
      if (route.isAs(other)) yield { routes, text: "name the same paths" };
      else if (!route.asksAs(other)) {
        yield { routes, text: "differ only in letter case or a slash, and need different things" };
      }
    }
    others.push(route);
  }

  /** Where the routes end that take a path if letter case, escapes and a slash at the end do not count. */
  couldTake(path: Path): Ends[] {
    const found: Ends[] = [];
    let nodes: Node[] = [this];
    for (const segment of path.folded) {
      const below: Node[] = [];
      for (const node of nodes) {
        found.push(node.rests);
        const literal = node.literals.get(segment);
        if (literal !== undefined) below.push(literal);
        if (node.variable !== null) below.push(node.variable);
      }
      nodes = below;
    }
    for (const node of nodes) found.push(node.ends, node.rests);
    return found;
  }

  /** Pairs of routes that could take one path while neither is the more specific. */
  *conflicts(): Generator<RouteProblem> {
    const pending: Pair[] = [];
    const nodes: Node[] = [this];
    for (let node = nodes.pop(); node !== undefined; node = nodes.pop()) {
      nodes.push(...childrenOf(node));
      if (node.variable !== null && node.literals.size > 0) {
        pending.push([merged([...node.literals.values()]), node.variable, false]);
      }
    }
    for (let step = 0; step < STEPS_MAX; step++) {
      const pair = pending.pop();
      if (pair === undefined) return;
      if (!meet(pair)) continue;
      yield* problemsOf(pair);
      pending.push(...below(pair));
    }
    const left = pending.pop();
    if (left !== undefined) {
      yield { routes: [anyOf(left[0]).text], text: "shares too many variables with too many other routes" };
    }
  }
}

/**
 * Two nodes that one path may lead to. What is below the first was more specific at first; where it is crossed, what
 * is below the other was so further on.
 */
type Pair = readonly [one: Node, other: Node, crossed: boolean];

function meet([one, other]: Pair): boolean {
  return [...one.methods].some((method) => meeting(method, other.methods).length > 0);
}

/** The conflicts of what ends at a pair. */
function* problemsOf([one, other, crossed]: Pair): Generator<RouteProblem> {
  if (crossed) {
    yield* conflictsOf([one.ends, one.rests], [other.ends, other.rests]);
    if (other.rests.size > 0) yield* conflictsOf(endsBelow(one), [other.rests]);
  }
  if (one.rests.size > 0) yield* conflictsOf([one.rests], endsBelow(other));
}

/** The pairs below a pair. */
function* below([one, other, crossed]: Pair): Generator<Pair> {
  for (const [segment, literal] of one.literals) {
    const otherLiteral = other.literals.get(segment);
    if (otherLiteral !== undefined) yield [literal, otherLiteral, crossed];
  }
  const others = crossed ? childrenOf(other) : [...other.literals.values()];
  if (one.variable !== null && others.length > 0) yield [one.variable, merged(others), true];
  const ones = crossed ? [...one.literals.values()] : childrenOf(one);
  if (other.variable !== null && ones.length > 0) yield [merged(ones), other.variable, crossed];
}

/** Pairs of routes, which take one path, of methods that meet. */
function* conflictsOf(these: readonly Ends[], others: readonly Ends[]): Generator<RouteProblem> {
  for (const ends of these) {
    for (const otherEnds of others) {
      for (const [method, routes] of ends) {
        for (const otherMethod of meeting(method, otherEnds)) {
          for (const route of routes) {
            for (const other of otherEnds.get(otherMethod) ?? []) {
              yield {
                routes: [route.text, other.text],
                text: "could take the same path, and neither is the more specific",
              };
            }
          }
        }
      }
    }
  }
}

/** Which of the others may be of one request with a method. A route for GET is for HEAD too. */
function meeting(method: string, others: { has(method: string): boolean; keys(): Iterable<string> }): string[] {
  if (method === ANY_METHOD) return [...others.keys()];
  const candidates = [method, ANY_METHOD];
  if (method === "GET") candidates.push("HEAD");
  if (method === "HEAD") candidates.push("GET");
  return candidates.filter((one) => others.has(one));
}

/** One node for several. */
function merged(nodes: readonly Node[]): Node {
  if (nodes.length === 1) return nodes[0] as Node;
  const whole = new Node();
  const literals = new Map<string, Node[]>();
  const variables: Node[] = [];
  for (const node of nodes) {
    addEnds(whole.ends, node.ends);
    addEnds(whole.rests, node.rests);
    for (const method of node.methods) whole.methods.add(method);
    for (const [segment, child] of node.literals) madeIn(literals, segment, () => []).push(child);
    if (node.variable !== null) variables.push(node.variable);
  }
  for (const [segment, some] of literals) whole.literals.set(segment, merged(some));
  if (variables.length > 0) whole.variable = merged(variables);
  return whole;
}

function addEnds(ends: Ends, more: Ends): void {
  for (const [method, routes] of more) madeIn(ends, method, () => []).push(...routes);
}

function childrenOf(node: Node): Node[] {
  return node.variable === null ? [...node.literals.values()] : [...node.literals.values(), node.variable];
}

function endsBelow(node: Node): Ends[] {
  return childrenOf(node).flatMap((child) => [child.ends, child.rests, ...endsBelow(child)]);
}

/** Some route that ends here or below. */
function anyOf(node: Node): Route {
  const [routes] = [...node.ends.values(), ...node.rests.values()];
  return routes === undefined ? anyOf(childrenOf(node)[0] as Node) : (routes[0] as Route);
}

function madeIn<T>(map: Map<string, T>, key: string, make: () => T): T {
  let value = map.get(key);
  if (value === undefined) {
    value = make();
    map.set(key, value);
  }
  return value;
}
