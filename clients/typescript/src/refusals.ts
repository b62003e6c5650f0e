// What a browser is answered. Knows no framework.

import { Denied, GuardError, PdpUnavailable, Unauthenticated } from "./errors.js";
import { type Log, logRefusal } from "./logging.js";

/** An answer to a request that does not go on. */
export interface Refusal {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** JSON. */
  readonly body: string;
}

/** The answer for an error by docs/guards.md. It says no reason. */
export function refusalOf(error: GuardError): Refusal {
  const headers: Record<string, string> = { "Content-Type": "application/json", "Cache-Control": "no-store" };
  if (error instanceof Unauthenticated) headers["WWW-Authenticate"] = "Bearer";
  if (error instanceof PdpUnavailable) headers["Retry-After"] = "1";
  const body: Record<string, string> = { error: error.word };
  if (error instanceof Denied) body["decision_id"] = error.decision.decisionId;
  return { status: error.httpStatus, headers, body: JSON.stringify(body) };
}

/**
 * The Response for an error of a guard; `log` is told why where there was no decision. Whatever else was thrown is
 * thrown again: it is no refusal.
 */
export function refuse(error: unknown, log: Log = console.warn): Response {
  if (!(error instanceof GuardError)) throw error;
  logRefusal(error, log);
  const { status, headers, body } = refusalOf(error);
  return new Response(body, { status, headers });
}
