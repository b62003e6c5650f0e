// The guard of Express applications.
//
//   const pdp = new ExpressGuard(guard);
//   app.use(pdp.middleware(new Routes({ "/admin/**": "admin:access", "GET /healthz": "public" })));
//   app.put("/courses/:id", pdp.protect<{ id: string }>("course:edit", course), handler);
//   app.use(pdp.errors); // last: answers the errors that handlers throw
//
// where `course` is `(req) => ({ type: "course", id: req.params.id })`. The actor is
// `req.actor`. Any handler may ask more: `await guard.of(req).require("course:create")`.

import type { ErrorRequestHandler, Request, RequestHandler, Response } from "express";

import { type Asked, answer, askedOf, checkFinder, checkSame, isSame, routed } from "./adapting.js";
import { GuardError, RouteRefused } from "./errors.js";
import type { Guard } from "./guard.js";
import type { Log } from "./logging.js";
import { pathOf } from "./route-path.js";
import type { Routes } from "./routes.js";
import type { Actor, Resource } from "./values.js";

declare global {
  namespace Express {
    interface Request {
      /** The allowed actor; null on a public route, and undefined if no guard has asked. */
      actor?: Actor | null;
    }
  }
}

/** Finds the resource of a request. */
export type ResourceOf<P> = (req: Request<P>) => Resource | Promise<Resource>;

/** The middleware of a guard. */
export class ExpressGuard {
  readonly #guard: Guard;
  readonly #log: Log;

  /** `log` receives the reason of each refusal without a decision; no text contains a token or a query. */
  constructor(guard: Guard, log: Log = console.warn) {
    this.#guard = guard;
    this.#log = log;
  }

  /**
   * Lets requests pass as a route map says. It checks the whole path as it was received, also below a mount point.
   * A path that was changed before is refused; so is a change of path or method afterwards, when Express looks for
   * a handler.
   */
  middleware(routes: Routes): RequestHandler {
    return this.#handler((req) => {
      const asked = routed(routes, req.method, receivedPath(req));
      keepAsJudged(req);
      return asked;
    });
  }

  /**
   * Lets requests pass whose actor has a permission, on the resource that a function finds in the request. `P`: the
   * request's parameters.
   */
  protect<P = unknown>(permission: string, ...resource: [] | [ResourceOf<P>]): RequestHandler<P> {
    if (resource.length === 0) return this.#handler<P>(() => ({ permission, resource: null }));
    const [find] = resource;
    checkFinder(permission, find);
    return this.#handler<P>((req) => askedOf(permission, find, req));
  }

  /** Answers the errors of a guard, and passes all others on. */
  readonly errors: ErrorRequestHandler = (error, req, res, next) => {
    if (error instanceof GuardError && !res.headersSent) this.#answer(error, req, res);
    else next(error);
  };

  #handler<P>(ask: (req: Request<P>) => Asked | null | Promise<Asked | null>): RequestHandler<P> {
    return async (req, res, next) => {
      try {
        const asked = await ask(req);
        req.actor = asked && (await this.#guard.of(req).require(asked.permission, asked.resource));
      } catch (error) {
        if (error instanceof GuardError) this.#answer(error, req, res);
        else next(error);
        return;
      }
      next();
    };
  }

  #answer<P>(error: GuardError, req: Request<P>, res: Response): void {
    const request = { method: req.method, target: req.originalUrl };
    const { status, headers, body } = answer(error, this.#log, request);
    for (const name of ["Content-Length", "Content-Encoding", "ETag", "Last-Modified"]) {
      res.removeHeader(name); // belongs to an answer that is not sent
    }
    for (const [name, value] of Object.entries(headers)) res.setHeader(name, value);
    res.statusCode = status;
    res.end(body);
  }
}

/** Throws RouteRefused if Express reads another path than the received one: it is unknown which one is meant. */
function receivedPath<P>(req: Request<P>): string {
  const path = pathOf(req.originalUrl);
  checkSame(path, req.baseUrl + req.path);
  return path;
}

/**
 * Throws RouteRefused if later code changes the method, or if Express has found its next handler by another path
 * than the checked one: it sets `params` for every handler, right before it calls it.
 */
function keepAsJudged<P>(req: Request<P>): void {
  const { method, originalUrl: target } = req;
  const path = pathOf(target);
  let params = req.params;
  const known = new WeakSet<object>([params as object]);
  Object.defineProperty(req, "method", {
    configurable: true,
    enumerable: true,
    get: () => method,
    set(changed: unknown) {
      if (changed !== method) throw changedLater();
    },
  });
  Object.defineProperty(req, "params", {
    configurable: true,
    enumerable: true,
    get: () => params,
    set(found: P) {
      params = found;
      const isNew = typeof found === "object" && found !== null && !known.has(found);
      if (isNew) known.add(found);
      const mountedAt = req.baseUrl ?? ""; // undefined after the last router
      if (isSame(path, pathOf(mountedAt + req.url))) return;
      // Error handlers or an outer router continue with the checked path.
      const rest = target.slice(mountedAt.length);
      req.url = rest.startsWith("/") ? rest : `/${rest}`;
      // A finished router restores the params of the outer one: no handler was found, and an error would not be
      // caught.
      if (isNew) throw changedLater();
    },
  });
}

/** Has the status with which Express answers if no error handler is left. */
function changedLater(): RouteRefused {
  return Object.assign(new RouteRefused("ambiguous_path"), { status: 403 });
}
