// What the adapters of all frameworks share. Knows no framework.

import { type GuardError, RouteRefused } from "./errors.js";
import { type Log, type LoggedRequest, logRefusal } from "./logging.js";
import { type Refusal, refusalOf } from "./refusals.js";
import { PUBLIC, type Routes } from "./routes.js";
import { nameOf, type Resource } from "./values.js";

/** What is to be asked about a request. */
export interface Asked {
  readonly permission: string;
  readonly resource: Resource | null;
}

/** Finds what is to be acted upon. */
export type Finder<Found extends unknown[]> = (...found: Found) => Resource | Promise<Resource>;

/** Throws TypeError for what should find a resource, and is no function. */
export function checkFinder(permission: string, finder: unknown): void {
  if (typeof finder !== "function") {
    throw new TypeError(`what finds the resource of ${permission} is a function, not ${nameOf(finder)}`);
  }
}

/** What is to be asked where a function finds the resource. Throws TypeError where it finds none. */
export async function askedOf<Found extends unknown[]>(
  permission: string,
  finder: Finder<Found>,
  ...found: Found
): Promise<Asked> {
  const resource = await finder(...found);
  // Without its resource the question would be another one, and might be allowed.
  if (resource === null || resource === undefined) throw new TypeError(`${permission} is asked about a resource`);
  return { permission, resource };
}

/** What a browser is answered; the log says why. */
export function answer(error: GuardError, log: Log, request: LoggedRequest): Refusal {
  logRefusal(error, log, request);
  return refusalOf(error);
}

/** What a route map says is to be asked; null: nothing, it is public. The path as it was sent. Throws RouteRefused. */
export function routed(routes: Routes, method: string, path: string): Asked | null {
  // Some frameworks take `post` for `POST`; a route for `POST` does not.
  if (method !== method.toUpperCase()) throw new RouteRefused("ambiguous_path");
  const asked = routes.match(method, path);
  return asked === PUBLIC ? null : asked;
}

/** Throws RouteRefused where an application reads another path than the one that was received. */
export function checkSame(received: string, read: string): void {
  if (!isSame(received, read)) throw new RouteRefused("ambiguous_path");
}

/** Whether both are one path to a route map, which refuses a path where a slash at its end counts: see Routes.match. */
export function isSame(received: string, read: string): boolean {
  return withoutSlash(received) === withoutSlash(read);
}

function withoutSlash(path: string): string {
  return path.endsWith("/") ? path.slice(0, -1) : path;
}
