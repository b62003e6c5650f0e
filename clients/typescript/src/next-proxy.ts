// The coarse filter of Next.js: `proxy.ts`, and before Next.js 16 `middleware.ts` with the runtime `nodejs`.
//
//   const filter = new CoarseFilter(guard, new Routes({ "/": "public", "/admin/**": "admin:access", ... }));
//   export const proxy = (request: NextRequest) => filter.refusal(request);
//
// It filters pages and nothing else. A server action can be called through any page, a rewrite in `next.config`
// leads to another path than the one seen here, and Next.js has had ways around its middleware (CVE-2025-29927,
// CVE-2026-44574, CVE-2026-44575). So each protected page, handler and action must ask by itself.

import type { NextRequest } from "next/server.js";

import { answer, routed } from "./adapting.js";
import { GuardError, RouteRefused } from "./errors.js";
import type { Guard } from "./guard.js";
import type { Log } from "./logging.js";
import type { Routes } from "./routes.js";
import type { Token } from "./values.js";

// `x.segments/y.segment.rsc` is the page `x` on platforms that route by it, and a page of that name elsewhere.
const SEGMENTS = /\.segments(?:\/|$)/i;

/** Refuses requests that a route map does not let pass. */
export class CoarseFilter {
  readonly #guard: Guard;
  readonly #routes: Routes;
  readonly #log: Log;

  /** `log` receives the reason of each refusal without a decision; no text contains a token or a query. */
  constructor(guard: Guard, routes: Routes, log: Log = console.warn) {
    this.#guard = guard;
    this.#routes = routes;
    this.#log = log;
  }

  /**
   * The answer to a refused request; undefined: it passes. The path is the one by which Next.js finds pages,
   * without `basePath` and locale. The token is that of the request, or the result of a function: `() =>
   * clerkToken(auth)`, within `clerkMiddleware`.
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

/** Throws RouteRefused if Next.js may find a page by another path. */
function pathOf({ nextUrl, headers }: NextRequest): string {
  // Of `/_next/data/<build>/x.json` only `/x` is visible, even if it is not data of this build but another page.
  // The client of the Pages Router loads the whole page if this is refused.
  const isData = headers.has("x-nextjs-data") || nextUrl.buildId !== undefined;
  // With both `basePath` and `i18n`, the proxy receives `/base/fr/x` as the page `/base/fr/x` of the locale `fr`.
  const isOfTwoLocales = nextUrl.pathname
    .toLowerCase()
    .split("/")
    .includes(nextUrl.locale.toLowerCase() || "/");
  if (isData || isOfTwoLocales || SEGMENTS.test(nextUrl.pathname)) throw new RouteRefused("ambiguous_path");
  return nextUrl.pathname;
}
