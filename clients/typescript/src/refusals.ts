// The HTTP answers to refused requests. Knows no framework.

import { Denied, GuardError, PdpUnavailable, Unauthenticated } from "./errors.js";
import { type Log, logRefusal } from "./logging.js";
import type { StepUp } from "./values.js";

/** The answer to a refused request. */
export interface Refusal {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** JSON. */
  readonly body: string;
}

/** The answer to an error, by docs/guards.md. It contains no reason. */
export function refusalOf(error: GuardError): Refusal {
  const headers: Record<string, string> = { "Content-Type": "application/json", "Cache-Control": "no-store" };
  if (error instanceof Unauthenticated) headers["WWW-Authenticate"] = "Bearer";
  if (error instanceof PdpUnavailable) headers["Retry-After"] = "1";
  const body: Record<string, unknown> = { error: error.word };
  if (error instanceof Denied) {
    body["decision_id"] = error.decision.decisionId;
    const { stepUp } = error.decision;
    if (stepUp) {
      headers["WWW-Authenticate"] = challengeOf(stepUp);
      body["clerk_error"] = reverificationOf(stepUp);
    }
  }
  return { status: error.httpStatus, headers, body: JSON.stringify(body) };
}

/** The value of WWW-Authenticate that requires a verification (RFC 9470, section 3). */
function challengeOf({ factor, maxAgeSeconds }: StepUp): string {
  return `Bearer error="insufficient_user_authentication", acr_values="${factor}", max_age="${maxAgeSeconds}"`;
}

/** What `useReverification` of Clerk's front ends recognises, as `clerk_error`, as a request to verify again. */
export interface Reverification {
  readonly type: "forbidden";
  readonly reason: "reverification-error";
  readonly metadata: {
    readonly reverification: { readonly level: StepUp["factor"]; readonly afterMinutes: number };
  };
}

export function reverificationOf({ factor, maxAgeSeconds }: StepUp): Reverification {
  const afterMinutes = Math.max(1, Math.floor(maxAgeSeconds / 60));
  return {
    type: "forbidden",
    reason: "reverification-error",
    metadata: { reverification: { level: factor, afterMinutes } },
  };
}

/**
 * The Response to an error of a guard; `log` receives the reason if there was no decision. Rethrows every other
 * error.
 */
export function refuse(error: unknown, log: Log = console.warn): Response {
  if (!(error instanceof GuardError)) throw error;
  logRefusal(error, log);
  const { status, headers, body } = refusalOf(error);
  return new Response(body, { status, headers });
}
