// Route maps, applications that have a handler for every route of a map, and requests; all drawn from a seed. What is
// tested: the handler that ran is the handler of the route that was judged.

import assert from "node:assert/strict";
import { Agent, request } from "node:http";
import type { TestContext } from "node:test";
import { inspect } from "node:util";

import { RouteMapInvalid, Routes } from "../src/index.js";
import type { CheckRequest } from "../src/pdpapi/v1/decision_service_pb.js";

/** Numbers that a seed determines (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed;
  }

  below(end: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % end;
  }

  of<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)] as T;
  }

  chance(percent: number): boolean {
    return this.below(100) < percent;
  }
}

/** One route of a map, and of the application. */
export interface Routing {
  /** GET or POST; empty: all. */
  readonly method: "" | "GET" | "POST";
  /** Literals, and `{v0}` where a segment is a variable. */
  readonly segments: readonly string[];
  /** Ends with `**`. */
  readonly rest: boolean;
  /** Empty: public. */
  readonly permission: string;
}

/** What one application is made of; the most specific route comes first. */
export interface Drawn {
  readonly prefix: string;
  readonly routings: readonly Routing[];
  readonly map: Routes;
}

/** What a handler says about itself. */
export interface Ran {
  readonly routing: Routing;
  readonly params: Readonly<Record<string, string | undefined>>;
}

const LITERALS = ["admin", "Admin", "a", "b", "courses"];
const VALUES = ["1", "a", "admin", "ADMIN", "%C3%A9", "x.y", "m"];

/** A map, of which every path is below a prefix. */
export function draw(random: Random, prefix: string): Drawn {
  for (;;) {
    const routings = Array.from({ length: 2 + random.below(5) }, (_, index) => drawRouting(random, index));
    routings.sort((one, other) => compare(other, one));
    const written = routings.map((one) => [textOf(one, prefix), needsOf(one)] as const);
    if (new Set(written.map(([text]) => text)).size < written.length) continue;
    try {
      return { prefix, routings, map: new Routes(Object.fromEntries(written)) };
    } catch (error) {
      if (!(error instanceof RouteMapInvalid)) throw error; // Two of its routes meet: draw again.
    }
  }
}

function drawRouting(random: Random, index: number): Routing {
  const segments = Array.from({ length: random.below(4) }, (_, place) =>
    random.chance(30) ? `{v${place}}` : random.of(LITERALS),
  );
  return {
    method: random.of(["", "", "GET", "POST"]),
    segments,
    rest: segments.length === 0 || random.chance(40),
    permission: random.chance(15) ? "" : `route_${index}:allowed`,
  };
}

const isVariable = (segment: string): boolean => segment.startsWith("{");

function rank({ segments, rest }: Routing): number[] {
  const ranks = segments.map((one) => (isVariable(one) ? 1 : 2));
  return rest ? ranks : [...ranks, 0];
}

function compare(one: Routing, other: Routing): number {
  const [ranks, others] = [rank(one), rank(other)];
  for (let place = 0; place < Math.max(ranks.length, others.length); place++) {
    const order = (ranks[place] ?? -1) - (others[place] ?? -1);
    if (order !== 0) return order;
  }
  return Number(one.method !== "") - Number(other.method !== "");
}

function textOf({ method, segments, rest }: Routing, prefix: string): string {
  const path = `${prefix}/${[...segments, ...(rest ? ["**"] : [])].join("/")}`;
  return method === "" ? path : `${method} ${path}`;
}

function needsOf(routing: Routing) {
  const variable = lastVariable(routing);
  if (routing.permission === "") return "public";
  const resource = variable === null ? {} : { resource: `thing/{${variable}}` };
  return { permission: routing.permission, ...resource };
}

function lastVariable({ segments }: Routing): string | null {
  return segments.findLast(isVariable)?.slice(1, -1) ?? null;
}

/** A method and a target. The target is one of a route, often spoilt. */
export function drawRequest(
  random: Random,
  { routings, prefix }: Omit<Drawn, "map">,
): { method: string; target: string } {
  const { segments, rest } = random.of(routings);
  const some = segments.map((one) => (isVariable(one) ? random.of(VALUES) : one));
  if (rest) some.push(...Array.from({ length: random.below(3) }, () => random.of([...LITERALS, ...VALUES])));
  let target = `${random.chance(90) ? prefix : random.of(["", "/m", "/m/m", "/a"])}/${some.join("/")}`;
  for (let spoils = random.of([0, 0, 1, 1, 2]); spoils > 0; spoils--) target = spoilt(random, target) || "/";
  return { method: random.of(["GET", "GET", "POST", "HEAD", "PUT"]), target };
}

function spoilt(random: Random, target: string): string {
  const at = random.below(target.length);
  const [before, character, after] = [target.slice(0, at), target[at] as string, target.slice(at + 1)];
  switch (random.below(9)) {
    case 0:
      return `${before}%${character.charCodeAt(0).toString(16).padStart(2, "0")}${after}`;
    case 1:
      return `${before}${random.chance(50) ? character.toUpperCase() : character.toLowerCase()}${after}`;
    case 2:
      return `${target}/`;
    case 3:
      return `${target}?x=/admin`;
    case 4:
      return target.replace(/\/(?=[^/]*$)/, random.of(["//", "/./", "/x/../", "/%2e/", "/x/%2e%2e/", "\\", "%2f"]));
    case 5:
      return `${target}${random.of([";x", "%00", "%20", "#x", "/..", "/.", "%2f", "%3fx"])}`;
    case 6:
      return random.of(["http://localhost", "//localhost", "/"]) + target;
    case 7:
      return `/${random.of(["m", "a", "x/.."])}${target}`;
    default:
      return target.slice(0, target.lastIndexOf("/"));
  }
}

/** The handler that ran, if any, is the one of the route that was judged; and it read the resource that was judged. */
export function isTheJudged(ran: readonly Ran[], asked: readonly CheckRequest[], what: object): void {
  const [one, ...others] = ran;
  if (one === undefined) return;
  const shown = inspect({ ran, asked, ...what }, { depth: 5 });
  assert.deepEqual(others, [], shown);
  const { routing, params } = one;
  const variable = lastVariable(routing);
  const id = routing.permission === "" || variable === null ? undefined : params[variable];
  assert.deepEqual(
    asked.map(({ permission, resource }) => [permission, resource?.id]),
    routing.permission === "" ? [] : [[routing.permission, id]],
    shown,
  );
}

/** Sends requests as they are written, over connections that are kept, and gives the status of each answer. */
export function sender(t: TestContext) {
  const agent = new Agent({ keepAlive: true });
  t.after(() => agent.destroy());
  return (port: number, method: string, path: string, headers: Record<string, string>): Promise<number> =>
    new Promise((resolve, reject) => {
      const sent = request({ host: "127.0.0.1", port, method, path, headers, agent }, (received) => {
        received.resume().once("end", () => resolve(received.statusCode ?? 0));
      });
      sent.once("error", reject);
      sent.end();
    });
}
