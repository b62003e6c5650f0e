import { CoarseFilter } from "../src/next-proxy.js";
import { Routes } from "../src/routes.js";
import { guard } from "./guard.js";

// The hardest map: what is no other path is let pass, nearly.
const filter = new CoarseFilter(
  guard,
  new Routes({
    "/**": "course:view",
    "/healthz": "public",
    "/courses/{id}": { permission: "course:edit", resource: "course/{id}" },
    "/admin/**": "admin:access",
    "/legacy/admin": "admin:access",
  }),
);

export async function proxy(request) {
  const { method, headers } = request;
  if (method === "OPTIONS" && headers.has("Origin") && headers.has("Access-Control-Request-Method")) {
    return new Response(null, { status: 204, headers: { "Access-Control-Allow-Origin": "https://front.example" } });
  }
  return filter.refusal(request);
}
