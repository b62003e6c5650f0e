// The errors of a guard.
//
//   GuardError
//   +-- Denied                 the PDP denied
//   |   +-- Unauthenticated    401: the token does not prove the actor's identity
//   |   +-- Forbidden          403: the actor is known and not allowed
//   +-- PdpUnavailable         503: there is no answer; a retry may help
//   +-- PdpRefused             500: the PDP rejects the question; a retry does not help
//   +-- RouteRefused           403: no route matches the path, or the path is ambiguous
//
// An application answers with `httpStatus`, `grpcStatus` (a code's name) and `word`. No text of an error contains
// a token or a key, and no error has a `cause`: gRPC's own errors repeat the peer's text.

import type { Decision } from "./values.js";

/** A problem of a request: the field and the reason. */
export interface Violation {
  readonly field: string;
  readonly description: string;
}

/** Base of all errors about an answer. It always means: do not continue. */
export abstract class GuardError extends Error {
  abstract readonly httpStatus: number;
  abstract readonly grpcStatus: string;
  /** The word for strangers. It is not a reason, because `WRONG_ORGANIZATION` would reveal that a resource exists. */
  abstract readonly word: string;
}

/** The PDP denied. */
export abstract class Denied extends GuardError {
  readonly decision: Decision;

  constructor(decision: Decision) {
    super(`${decision.reason}: ${decision.message} (decision ${decision.decisionId})`);
    this.decision = decision;
  }
}

/** The token does not prove the actor's identity (401). */
export class Unauthenticated extends Denied {
  override readonly name = "Unauthenticated";
  readonly httpStatus = 401;
  readonly grpcStatus = "UNAUTHENTICATED";
  readonly word = "unauthenticated";
}

/** The actor is known and not allowed (403). */
export class Forbidden extends Denied {
  override readonly name = "Forbidden";
  readonly httpStatus = 403;
  readonly grpcStatus = "PERMISSION_DENIED";
  readonly word = "forbidden";
}

/** There is no answer (503): the PDP is unreachable, did not answer in time, or sent an invalid answer. */
export class PdpUnavailable extends GuardError {
  override readonly name = "PdpUnavailable";
  readonly httpStatus = 503;
  readonly grpcStatus = "UNAVAILABLE";
  readonly word = "unavailable";
  /** Name of the gRPC status code; empty if an answer broke the contract. */
  readonly code: string;
  /** Name of an ErrorReason without its prefix, for example `FACTS_STALE`; empty: not given. */
  readonly reason: string;

  constructor(message: string, code = "", reason = "") {
    super(joined(code, reason, message));
    this.code = code;
    this.reason = reason;
  }
}

/** The PDP rejects the question (500): it is malformed, or this caller may not ask it. */
export class PdpRefused extends GuardError {
  override readonly name = "PdpRefused";
  readonly httpStatus = 500;
  readonly grpcStatus = "INTERNAL";
  readonly word = "internal";
  /** Name of the gRPC status code. */
  readonly code: string;
  /** Name of an ErrorReason without its prefix, for example `REQUEST_INVALID`; empty: not given. */
  readonly reason: string;
  /** The malformed fields, if the PDP named them. */
  readonly violations: readonly Violation[];

  constructor(message: string, code = "", reason = "", violations: readonly Violation[] = []) {
    super(
      joined(
        code,
        reason,
        message,
        ...violations.map((violation) => `(${violation.field}: ${violation.description})`),
      ),
    );
    this.code = code;
    this.reason = reason;
    this.violations = violations;
  }
}

/** Why a route map refuses a request. `ambiguous_path`: the path has several readings. */
export type RouteReason = "no_route" | "ambiguous_path";

/** A route map refuses a request (403). The PDP was not asked. */
export class RouteRefused extends GuardError {
  override readonly name = "RouteRefused";
  readonly httpStatus = 403;
  readonly grpcStatus = "PERMISSION_DENIED";
  readonly word = "forbidden";
  readonly reason: RouteReason;

  constructor(reason: RouteReason) {
    super(reason);
    this.reason = reason;
  }
}

function joined(...parts: string[]): string {
  return parts.filter((part) => part !== "").join(" ");
}
