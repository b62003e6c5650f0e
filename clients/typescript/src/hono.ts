// The guard of Hono applications.
//
//   const pdp = new HonoGuard(guard);
//   app.use(pdp.middleware(new Routes({ "/admin/**": "admin:access", "GET /healthz": "public" })));
//   app.put("/courses/:id", pdp.protect<"/courses/:id">("course:edit", course), handler);
//   app.onError(pdp.errors); // answers the errors that handlers throw
//
// where `course` is `(c) => ({ type: "course", id: c.req.param("id") })`. The actor is
// `c.var.actor`. Any handler may ask more: `await guard.of(c.req.raw).require("course:create")`.

import type { Context, ErrorHandler, MiddlewareHandler } from "hono";

import { type Asked, answer, askedOf, checkFinder, checkSame, routed } from "./adapting.js";
import { GuardError } from "./errors.js";
import type { Guard } from "./guard.js";
import type { Log } from "./logging.js";
import { pathOf } from "./route-path.js";
import type { Routes } from "./routes.js";
import type { Actor, Resource } from "./values.js";

/** The variables that the middleware of a route map sets: the allowed actor; null on a public route. */
export interface RoutedEnv {
  Variables: { actor: Actor | null };
}

/** The variables that `protect` sets: the allowed actor. */
export interface ProtectedEnv {
  Variables: { actor: Actor };
}

/** The middleware of a guard. */
export class HonoGuard {
  readonly #guard: Guard;
  readonly #log: Log;

  /** `log` receives the reason of each refusal without a decision; no text contains a token or a query. */
  constructor(guard: Guard, log: Log = console.warn) {
    this.#guard = guard;
    this.#log = log;
  }

  /**
   * Lets requests pass as a route map says. It reads the path as it was received; an application that is mounted,
   * or that reads the path in another way, is refused.
   */
  middleware(routes: Routes): MiddlewareHandler<RoutedEnv> {
    return this.#handler((c) => routed(routes, c.req.raw.method, receivedPath(c)));
  }

  /**
   * Lets requests pass whose actor has a permission, on the resource that a function finds in the request. `P`: the
   * path.
   */
  protect<P extends string = string>(
    permission: string,
    ...resource: [] | [(c: Context<ProtectedEnv, P>) => Resource | Promise<Resource>]
  ): MiddlewareHandler<ProtectedEnv, P> {
    const [find] = resource;
    if (resource.length > 0) checkFinder(permission, find);
    // If there is a question, there is an actor.
    return this.#handler((c) =>
      find === undefined
        ? { permission, resource: null }
        : askedOf(permission, find, c as unknown as Context<ProtectedEnv, P>),
    ) as unknown as MiddlewareHandler<ProtectedEnv, P>;
  }

  /** Answers the errors of a guard itself, and all others as Hono does by default. */
  readonly errors: ErrorHandler = (error, c) => {
    if (error instanceof GuardError) return this.#answer(error, c);
    if ("getResponse" in error) return error.getResponse();
    console.error(error);
    return c.text("Internal Server Error", 500);
  };

  #handler(ask: (c: Context<RoutedEnv>) => Asked | null | Promise<Asked | null>): MiddlewareHandler<RoutedEnv> {
    return async (c, next) => {
      try {
        const asked = await ask(c);
        const actor = asked && (await this.#guard.of(c.req.raw).require(asked.permission, asked.resource));
        c.set("actor", actor);
      } catch (error) {
        if (error instanceof GuardError) return this.#answer(error, c);
        throw error;
      }
      await next();
      return;
    };
  }

  #answer(error: GuardError, c: Context): Response {
    const request = { method: c.req.raw.method, target: receivedTarget(c) };
    const { status, headers, body } = answer(error, this.#log, request);
    return new Response(body, { status, headers });
  }
}

/** The path as it was received. Throws RouteRefused if Hono finds handlers by another one, which it decodes once. */
function receivedPath(c: Context): string {
  const path = pathOf(receivedTarget(c));
  checkSame(decoded(path), c.req.path);
  return path;
}

/**
 * The path from the request of Node's server if there is one, because `Request` has normalised its URL. For another
 * server the normalised URL is all there is.
 */
function receivedTarget(c: Context): string {
  const target: unknown = c.env?.incoming?.url;
  return typeof target === "string" ? target : new URL(c.req.raw.url).pathname;
}

function decoded(path: string): string {
  try {
    return decodeURI(path);
  } catch {
    return path; // A route map refuses it.
  }
}
