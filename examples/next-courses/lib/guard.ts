import { forbidden, unauthorized } from "next/navigation";
import { type Actor, Forbidden, Guard, type Resource, Unauthenticated } from "pdp-client";
import { NextGuard } from "pdp-client/next";

export const guard = new Guard(process.env.PDP_SERVER ?? "127.0.0.1:50051", {
  apiKey: process.env.PDP_API_KEY,
  deadlineMs: Number(process.env.PDP_DEADLINE_MS ?? 250),
});

export const pdp = new NextGuard(guard);

/** For pages: who may see this one. Everybody else is shown `unauthorized.tsx`, `forbidden.tsx` or `error.tsx`. */
export async function requireForPage(permission: string, resource: Resource | null = null): Promise<Actor> {
  try {
    return await pdp.require(permission, resource);
  } catch (error) {
    if (error instanceof Unauthenticated) unauthorized();
    if (error instanceof Forbidden) forbidden();
    throw error;
  }
}
