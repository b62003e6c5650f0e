// What a guard throws.
//
//   GuardError
//   +-- Denied                 the PDP said no
//   |   +-- Unauthenticated    401: the token does not prove who asks
//   |   +-- Forbidden          403: the actor is known and may not
//   +-- PdpUnavailable         503: there is no answer; asking again may help
//   +-- PdpRefused             500: the PDP does not take the question; asking again does not help
//   +-- RouteRefused           403: no route names the path, or it has two readings
//
// `httpStatus`, `grpcStatus` (a code's name) and `word` are what an application answers. No text of these holds a
// token or a key, and none has a `cause`: what gRPC throws repeats the peer's text.

import type { Decision } from "./values.js";

/** One thing that is wrong with a request: where, and what. */
export interface Violation {
  readonly field: string;
  readonly description: string;
}

/** Base of all that a guard throws about an answer. It always means: do not go on. */
export abstract class GuardError extends Error {
  abstract readonly httpStatus: number;
  abstract readonly grpcStatus: string;
  /** What a stranger is told. It says no reason, because `WRONG_ORGANIZATION` tells that there is something. */
  abstract readonly word: string;
}

/** The PDP said no. */
export abstract class Denied extends GuardError {
  readonly decision: Decision;

  constructor(decision: Decision) {
    super(`${decision.reason}: ${decision.message} (decision ${decision.decisionId})`);
    this.decision = decision;
  }
}

/** The token does not prove who asks (401). */
export class Unauthenticated extends Denied {
  override readonly name = "Unauthenticated";
  readonly httpStatus = 401;
  readonly grpcStatus = "UNAUTHENTICATED";
  readonly word = "unauthenticated";
}

/** The actor is known and may not (403). */
export class Forbidden extends Denied {
  override readonly name = "Forbidden";
  readonly httpStatus = 403;
  readonly grpcStatus = "PERMISSION_DENIED";
  readonly word = "forbidden";
}

/** There is no answer (503): the PDP is out of reach, out of time, or what it said is no answer. */
export class PdpUnavailable extends GuardError {
  override readonly name = "PdpUnavailable";
  readonly httpStatus = 503;
  readonly grpcStatus = "UNAVAILABLE";
  readonly word = "unavailable";
  /** Name of the gRPC status code; empty where an answer came and broke the contract. */
  readonly code: string;
  /** Name of an ErrorReason without its prefix, e.g. `FACTS_STALE`; empty: not given. */
  readonly reason: string;

  constructor(message: string, code = "", reason = "") {
    super(joined(code, reason, message));
    this.code = code;
    this.reason = reason;
  }
}

/** The PDP does not take the question (500): it is malformed, or this caller may not ask. */
export class PdpRefused extends GuardError {
  override readonly name = "PdpRefused";
  readonly httpStatus = 500;
  readonly grpcStatus = "INTERNAL";
  readonly word = "internal";
  /** Name of the gRPC status code. */
  readonly code: string;
  /** Name of an ErrorReason without its prefix, e.g. `REQUEST_INVALID`; empty: not given. */
  readonly reason: string;
  /** The fields that are wrong, where the PDP named them. */
  readonly violations: readonly Violation[];

  constructor(message: string, code = "", reason = "", violations: readonly Violation[] = []) {
    super(joined(code, reason, message, ...violations.map((one) => `(${one.field}: ${one.description})`)));
    this.code = code;
    this.reason = reason;
    this.violations = violations;
  }
}

/** Why a route map lets a request not pass. `ambiguous_path`: it could be read otherwise. */
export type RouteReason = "no_route" | "ambiguous_path";

/** A route map lets a request not pass, and nobody was asked (403). */
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
