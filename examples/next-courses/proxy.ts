import type { NextRequest } from "next/server";
import { CoarseFilter } from "pdp-client/next/proxy";
import { Routes } from "pdp-client/routes";
import { guard } from "./lib/guard";

// What is not named is refused. `public` says here that the page or the handler asks by itself, course by course.
const routes = new Routes({
  "/": "public",
  "/courses/**": "public",
  "/api/courses/**": "public",
  "/admin/**": "admin:access",
  "/icon.svg": "public",
  "/_next/static/**": "public",
});
const filter = new CoarseFilter(guard, routes);

export const proxy = (request: NextRequest) => filter.refusal(request);
