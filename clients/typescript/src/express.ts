// The guard of Express applications.
//
//   const pdp = new ExpressGuard(guard);
//   app.use(pdp.middleware(new Routes({ "/admin/**": "admin:access", "GET /healthz": "public" })));
//   app.put("/courses/:id", pdp.protect<{ id: string }>("course:edit", course), handler);
//   app.use(pdp.errors); // the last: answers what handlers throw
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
      /** Who was let pass; null on a public route, and undefined where nothing has asked. */
      actor?: Actor | null;
    }
  }
}

/** Finds in a request what is to be acted upon. */
export type ResourceOf<P> = (req: Request<P>) => Resource | Promise<Resource>;

/** The middleware of a guard. */
export class ExpressGuard {
  readonly #guard: Guard;
  readonly #log: Log;

  /** `log` is told why a request was refused without a decision; no text holds a token or a query. */
  constructor(guard: Guard, log: Log = console.warn) {
    this.#guard = guard;
    this.#log = log;
  }

  /**
   * Lets pass what a route map lets pass. It judges the whole path as it was received, below a mount point too. A path
   * that was changed before is refused; so is a change of path or method behind it, when Express looks for a handler.
   */
  middleware(routes: Routes): RequestHandler {
    return this.#handler((req) => {
      const asked = routed(routes, req.method, receivedPath(req));
      keepAsJudged(req);
      return asked;
    });
  }

  /** Lets pass who has a permission, on the resource that a function finds in the request. `P` are its parameters. */
  protect<P = unknown>(permission: string, ...resource: [] | [ResourceOf<P>]): RequestHandler<P> {
    if (resource.length === 0) return this.#handler<P>(() => ({ permission, resource: null }));
    const [find] = resource;
    checkFinder(permission, find);
    return this.#handler<P>((req) => askedOf(permission, find, req));
  }

  /** Answers the errors of a guard, and hands on all others. */
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
      res.removeHeader(name); // of an answer that is not given
    }
    for (const [name, value] of Object.entries(headers)) res.setHeader(name, value);
    res.statusCode = status;
    res.end(body);
  }
}

/** Where Express reads another path than the one that was received, nobody knows which one is meant. */
function receivedPath<P>(req: Request<P>): string {
  const path = pathOf(req.originalUrl);
  checkSame(path, req.baseUrl + req.path);
  return path;
}

/**
 * Throws RouteRefused where something that comes later changes the method, or where Express has found its next handler
 * by another path than the one that was judged: it sets `params` for every handler, right before it calls it.
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
      const mountedAt = req.baseUrl ?? ""; // undefined once every router is done
      if (isSame(path, pathOf(mountedAt + req.url))) return;
      // What comes next, error handlers or an outer router, goes on with the path that was judged.
      const rest = target.slice(mountedAt.length);
      req.url = rest.startsWith("/") ? rest : `/${rest}`;
      // A router that is done gives back the params of the outer one: no handler was found, and nobody would catch.
      if (isNew) throw changedLater();
    },
  });
}

/** With the status by which Express answers where no error handler is left. */
function changedLater(): RouteRefused {
  return Object.assign(new RouteRefused("ambiguous_path"), { status: 403 });
}
