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

import { type Asked, answer, askedOf, checkFinder, checkSame, type Log, routed } from "./adapting.js";
import { GuardError } from "./errors.js";
import type { Guard } from "./guard.js";
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

  /** `log` is told of requests for which there was no decision; no text holds a token. */
  constructor(guard: Guard, log: Log = console.error) {
    this.#guard = guard;
    this.#log = log;
  }

  /**
   * Lets pass what a route map lets pass. It reads the path as it was received; what changes it before is refused, and
   * what changes path or method later is not seen.
   */
  middleware(routes: Routes): RequestHandler {
    return this.#handler((req) => routed(routes, req.method, receivedPath(req)));
  }

  /** Lets pass who has a permission, on the resource that a function finds in the request. `P` are its parameters. */
  protect<P = unknown>(permission: string, ...resource: [] | [ResourceOf<P>]): RequestHandler<P> {
    if (resource.length === 0) return this.#handler<P>(() => ({ permission, resource: null }));
    const [find] = resource;
    checkFinder(permission, find);
    return this.#handler<P>((req) => askedOf(permission, find, req));
  }

  /** Answers the errors of a guard, and hands on all others. */
  readonly errors: ErrorRequestHandler = (error, _req, res, next) => {
    if (error instanceof GuardError && !res.headersSent) this.#answer(error, res);
    else next(error);
  };

  #handler<P>(ask: (req: Request<P>) => Asked | null | Promise<Asked | null>): RequestHandler<P> {
    return async (req, res, next) => {
      try {
        const asked = await ask(req);
        req.actor = asked && (await this.#guard.of(req).require(asked.permission, asked.resource));
      } catch (error) {
        if (error instanceof GuardError) this.#answer(error, res);
        else next(error);
        return;
      }
      next();
    };
  }

  #answer(error: GuardError, res: Response): void {
    const { status, headers, body } = answer(error, this.#log);
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
