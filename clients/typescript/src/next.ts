// The guard of Next.js applications with the App Router: route handlers, server actions, server components.
//
//   export const pdp = new NextGuard(guard);                       // with Clerk: { token: () => clerkToken(auth) }
//
//   export const PUT = pdp.withGuard("course:edit", ({ id }) => course(id), async (request, { actor }) => ...);
//   export const rename = pdp.withGuardAction("course:edit", (id: string) => course(id), async (actor, id) => ...);
//   const permissions = await pdp.can(questions);                  // in a server component
//
// Every handler and every action asks by itself: an action can be called through any page, whatever `proxy.ts`
// allows for the page with its button.

import { headers } from "next/headers.js";
import type { NextRequest } from "next/server.js";

import { answer, askedOf, checkFinder, type Finder } from "./adapting.js";
import { Denied, GuardError } from "./errors.js";
import type { Guard, PlanOptions } from "./guard.js";
import { type Log, logRefusal } from "./logging.js";
import type { PermissionSet } from "./permissions.js";
import type { Plan } from "./plans.js";
import { type Reverification, reverificationOf } from "./refusals.js";
import type { Actor, Attributes, Question, Resource, Token } from "./values.js";

/** The options of a guard of Next.js. */
export interface NextGuardOptions {
  /**
   * Returns the token of the current request, in place of its headers: `() => clerkToken(auth)` of
   * `pdp-client/clerk`.
   */
  readonly token?: () => string | Token | Promise<string | Token>;
  /** Receives the reason of each refusal without a decision; no text contains a token or a query. */
  readonly log?: Log;
}

/** Finds the resource of a request or an action. Null in place of the function: the permission needs no resource. */
export type ResourceOf<Found extends unknown[]> = Finder<Found> | null;

/** The argument of a route handler after the request. */
export interface RouteContext<Params> {
  readonly params: Promise<Params>;
}

/** The same, with the allowed actor. */
export interface GuardedContext<Params> extends RouteContext<Params> {
  readonly actor: Actor;
}

/**
 * The result of an action for an actor who is not allowed, or if the PDP gives no answer. It is returned, because
 * Next.js hides from browsers what an action throws. It contains no reason.
 */
export interface Refused {
  readonly refused: {
    /** The status of a route handler's answer: 401, 403, 503 or 500. */
    readonly status: number;
    /** `unauthenticated`, `forbidden`, `unavailable` or `internal`. */
    readonly error: string;
    /** For a denial: its id in the audit log. */
    readonly decisionId?: string;
  };
  /** For a denial that a verification would lift: `useReverification` of Clerk's front ends asks for it, and repeats the action. */
  readonly clerk_error?: Reverification;
}

/** A guard for handlers, actions and components of Next.js. */
export class NextGuard {
  readonly #guard: Guard;
  readonly #token: NextGuardOptions["token"];
  readonly #log: Log;

  constructor(guard: Guard, { token, log = console.warn }: NextGuardOptions = {}) {
    this.#guard = guard;
    this.#token = token;
    this.#log = log;
  }

  /**
   * A route handler for allowed actors only. `resource` receives the variables of the path, decoded once, and the
   * request. Refusals are answered by docs/guards.md, also those that the handler throws.
   */
  withGuard<Params>(
    permission: string,
    resource: ResourceOf<[params: Params, request: NextRequest]>,
    handle: (request: NextRequest, context: GuardedContext<Params>) => Response | Promise<Response>,
  ): (request: NextRequest, context: RouteContext<Params>) => Promise<Response> {
    if (resource !== null) checkFinder(permission, resource);
    return async (request, { params }) => {
      try {
        const token = this.#token ? await this.#token() : this.#guard.sessionToken(request);
        const actor = await this.#require(token, permission, resource, [await params, request]);
        return await handle(request, { params, actor });
      } catch (error) {
        if (!(error instanceof GuardError)) throw error;
        const { status, headers, body } = answer(error, this.#log, {
          method: request.method,
          target: new URL(request.url).pathname,
        });
        return new Response(body, { status, headers });
      }
    };
  }

  /**
   * A server action for allowed actors only: the actor precedes the arguments of the call. `resource` receives the
   * arguments too; a browser sent them, whatever their types say. Returns a `Refused` in place of a result, also
   * for refusals that the action throws.
   */
  withGuardAction<Arguments extends unknown[], Result>(
    permission: string,
    resource: ResourceOf<Arguments>,
    act: (actor: Actor, ...sent: Arguments) => Result | Promise<Result>,
  ): (...sent: Arguments) => Promise<Result | Refused> {
    if (resource !== null) checkFinder(permission, resource);
    return async (...sent) => {
      try {
        const actor = await this.#require(await this.token(), permission, resource, sent);
        return await act(actor, ...sent);
      } catch (error) {
        if (!(error instanceof GuardError)) throw error;
        logRefusal(error, this.#log);
        return refusedBy(error);
      }
    };
  }

  /**
   * The verified actor of the current request, if they are allowed: for server components. Throws what
   * `Guard.require` throws.
   */
  async require(permission: string, resource: Resource | null = null): Promise<Actor> {
    return this.#guard.require(await this.token(), permission, resource);
  }

  /** The allowed questions of the current request's actor, for display in a server component. It guards nothing. */
  async can(questions: readonly Question[]): Promise<PermissionSet> {
    return this.#guard.can(await this.token(), questions);
  }

  /**
   * All permissions of the current request's actor on a resource, or on each of several, for display in a server
   * component. It guards nothing.
   */
  async permissions(
    resources: Resource | readonly Resource[],
    context?: Attributes | null,
  ): Promise<PermissionSet> {
    return this.#guard.permissions(await this.token(), resources, context);
  }

  /** As `Guard.plan`, for the current request's actor: for lists in a server component. */
  async plan(permission: string, resourceType: string, options?: PlanOptions): Promise<Plan> {
    return this.#guard.plan(await this.token(), permission, resourceType, options);
  }

  /** The token of the current request. */
  async token(): Promise<string | Token> {
    // Always read, so that nothing that depends on the actor is rendered before there is a request.
    const received = await headers();
    return this.#token ? this.#token() : this.#guard.sessionToken({ headers: received });
  }

  async #require<Arguments extends unknown[]>(
    token: string | Token,
    permission: string,
    resource: ResourceOf<Arguments>,
    found: Arguments,
  ): Promise<Actor> {
    if (resource === null) return this.#guard.require(token, permission);
    const asked = await askedOf(permission, resource, ...found);
    return this.#guard.require(token, permission, asked.resource);
  }
}

function refusedBy(error: GuardError): Refused {
  const refused = { status: error.httpStatus, error: error.word };
  if (!(error instanceof Denied)) return { refused };
  const { decisionId, stepUp } = error.decision;
  const named = { refused: { ...refused, decisionId } };
  return stepUp ? { ...named, clerk_error: reverificationOf(stepUp) } : named;
}
