// The routes of a map as a tree, and the conflicts between them.

import { fold, type Path } from "./route-path.js";
import { ANY_METHOD, type Route } from "./route-pattern.js";

/** Bounds the search for conflicts in a map to seconds. No real map comes near it, and no map may stop a server. */
const STEPS_MAX = 200_000;

/** Routes that end at a node, by method. Routes of the same method differ in letter case or a slash. */
export type Ends = Map<string, Route[]>;

/** A problem of a route, or of two conflicting routes. */
export interface RouteProblem {
  readonly routes: readonly string[];
  readonly text: string;
}

/** A node of the tree. Ignores letter case and a slash at the end. */
export class Node {
  literals = new Map<string, Node>();
  variable: Node | null = null;
  ends: Ends = new Map();
  /** Routes that continue with `**`. */
  rests: Ends = new Map();
  /** The methods of all routes that end here or below. */
  methods = new Set<string>();

  /** Adds a route to the tree of this root. Yields its conflicts with routes at the same node. */
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

  /** The ends of the routes that match a path if letter case, escapes and a slash at the end are ignored. */
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

  /** Pairs of routes that could match the same path, neither of them more specific. */
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
 * Two nodes that the same path may lead to. Routes below the first were more specific at first; if the pair is
 * crossed, routes below the other were so at a later segment.
 */
type Pair = readonly [left: Node, right: Node, crossed: boolean];

function meet([left, right]: Pair): boolean {
  return [...left.methods].some((method) => meeting(method, right.methods).length > 0);
}

/** The conflicts of the routes that end at a pair. */
function* problemsOf([left, right, crossed]: Pair): Generator<RouteProblem> {
  if (crossed) {
    yield* conflictsOf([left.ends, left.rests], [right.ends, right.rests]);
    if (right.rests.size > 0) yield* conflictsOf(endsBelow(left), [right.rests]);
  }
  if (left.rests.size > 0) yield* conflictsOf([left.rests], endsBelow(right));
}

/** The pairs below a pair. */
function* below([left, right, crossed]: Pair): Generator<Pair> {
  for (const [segment, literal] of left.literals) {
    const otherLiteral = right.literals.get(segment);
    if (otherLiteral !== undefined) yield [literal, otherLiteral, crossed];
  }
  const rights = crossed ? childrenOf(right) : [...right.literals.values()];
  if (left.variable !== null && rights.length > 0) yield [left.variable, merged(rights), true];
  const lefts = crossed ? [...left.literals.values()] : childrenOf(left);
  if (right.variable !== null && lefts.length > 0) yield [merged(lefts), right.variable, crossed];
}

/** Pairs whose methods overlap, of routes that match the same path. */
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

/** The methods among the others that overlap with a method. A route for GET also matches HEAD. */
function meeting(method: string, others: { has(method: string): boolean; keys(): Iterable<string> }): string[] {
  if (method === ANY_METHOD) return [...others.keys()];
  const candidates = [method, ANY_METHOD];
  if (method === "GET") candidates.push("HEAD");
  if (method === "HEAD") candidates.push("GET");
  return candidates.filter((name) => others.has(name));
}

/** Merges several nodes into a new node. */
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

/** A route that ends here or below. */
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
