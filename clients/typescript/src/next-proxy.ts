// The coarse filter of Next.js: `proxy.ts`, and before Next.js 16 `middleware.ts` with the runtime `nodejs`.
//
//   const filter = new CoarseFilter(guard, new Routes({ "/": "public", "/admin/**": "admin:access", ... }));
//   export const proxy = (request: NextRequest) => filter.refusal(request);
//
// It filters pages and nothing else. A server action is called through any page, what `next.config` rewrites is found
// by another path than the one that is seen here, and Next.js has had ways around its middleware (CVE-2025-29927,
// CVE-2026-44574, CVE-2026-44575): each page, handler and action that has something to hide asks by itself.

import type { NextRequest } from "next/server.js";

import { answer, routed } from "./adapting.js";
import { GuardError, RouteRefused } from "./errors.js";
import type { Guard } from "./guard.js";
import type { Log } from "./logging.js";
import type { Routes } from "./routes.js";
import type { Token } from "./values.js";

// `x.segments/y.segment.rsc` is the page `x` where a platform routes by it, and a page of that name elsewhere.
const SEGMENTS = /\.segments(?:\/|$)/i;

/** Refuses what a route map does not let pass. */
export class CoarseFilter {
  readonly #guard: Guard;
  readonly #routes: Routes;
  readonly #log: Log;

  /** `log` is told why a request was refused without a decision; no text holds a token or a query. */
  constructor(guard: Guard, routes: Routes, log: Log = console.warn) {
    this.#guard = guard;
    this.#routes = routes;
    this.#log = log;
  }

  /**
   * The answer to a request that does not pass; undefined: it passes. The path is the one by which Next.js finds
   * pages, without `basePath` and locale. The token is that of the request, or what a function gives:
   * `() => clerkToken(auth)`, within `clerkMiddleware`.
   */
  async refusal(
    request: NextRequest,
    token?: () => string | Token | Promise<string | Token>,
  ): Promise<Response | undefined> {
    try {
      const asked = routed(this.#routes, request.method, pathOf(request));
      if (asked === null) return undefined;
      const actorToken = token ? await token() : this.#guard.sessionToken(request);
      await this.#guard.require(actorToken, asked.permission, asked.resource);
      return undefined;
    } catch (error) {
      if (!(error instanceof GuardError)) throw error;
      const { status, headers, body } = answer(error, this.#log, {
        method: request.method,
        target: request.nextUrl.pathname,
      });
      return new Response(body, { status, headers });
    }
  }
}

/** Throws RouteRefused where Next.js may find a page by another path. */
function pathOf({ nextUrl, headers }: NextRequest): string {
  // Of `/_next/data/<build>/x.json` only `/x` is seen, also where it is no data of this build but some other page. The
  // client of the Pages Router that is refused it loads the page as a whole.
  const isData = headers.has("x-nextjs-data") || nextUrl.buildId !== undefined;
  // With both `basePath` and `i18n`, `/base/fr/x` is shown to the proxy as the page `/base/fr/x` of the locale `fr`.
  const isOfTwoLocales = nextUrl.pathname
    .toLowerCase()
    .split("/")
    .includes(nextUrl.locale.toLowerCase() || "/");
  if (isData || isOfTwoLocales || SEGMENTS.test(nextUrl.pathname)) throw new RouteRefused("ambiguous_path");
  return nextUrl.pathname;
}
