// Shared by the adapters of all frameworks. Knows no framework.

import { type GuardError, RouteRefused } from "./errors.js";
import { type Log, type LoggedRequest, logRefusal } from "./logging.js";
import { type Refusal, refusalOf } from "./refusals.js";
import { PUBLIC, type Routes } from "./routes.js";
import { nameOf, type Resource } from "./values.js";

/** The question about a request. */
export interface Asked {
  readonly permission: string;
  readonly resource: Resource | null;
}

/** Finds the resource of a request. */
export type Finder<Found extends unknown[]> = (...found: Found) => Resource | Promise<Resource>;

/** Throws TypeError if the finder of a resource is not a function. */
export function checkFinder(permission: string, finder: unknown): void {
  if (typeof finder !== "function") {
    throw new TypeError(`what finds the resource of ${permission} is a function, not ${nameOf(finder)}`);
  }
}

/** The question, with the resource that a function finds. Throws TypeError if it finds none. */
export async function askedOf<Found extends unknown[]>(
  permission: string,
  finder: Finder<Found>,
  ...found: Found
): Promise<Asked> {
  const resource = await finder(...found);
  // Without its resource it would be a different question, which might be allowed.
  if (resource === null || resource === undefined) throw new TypeError(`${permission} is asked about a resource`);
  return { permission, resource };
}

/** The answer to a browser. Logs the reason. */
export function answer(error: GuardError, log: Log, request: LoggedRequest): Refusal {
  logRefusal(error, log, request);
  return refusalOf(error);
}

/** The question that a route map asks for the path as it was sent; null: the route is public. Throws RouteRefused. */
export function routed(routes: Routes, method: string, path: string): Asked | null {
  // Some frameworks accept `post` for `POST`; a route for `POST` does not.
  if (method !== method.toUpperCase()) throw new RouteRefused("ambiguous_path");
  const asked = routes.match(method, path);
  return asked === PUBLIC ? null : asked;
}

/** Throws RouteRefused if the application reads another path than the received one. */
export function checkSame(received: string, read: string): void {
  if (!isSame(received, read)) throw new RouteRefused("ambiguous_path");
}

/**
 * Whether a route map takes both for the same path. It refuses paths for which a trailing slash matters: see
 * Routes.match.
 */
export function isSame(received: string, read: string): boolean {
  return withoutSlash(received) === withoutSlash(read);
}

function withoutSlash(path: string): string {
  return path.endsWith("/") ? path.slice(0, -1) : path;
}
