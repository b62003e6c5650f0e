// The error for a failed call. Every status code has one; none is an allow.

import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { type ServiceError, status } from "@grpc/grpc-js";

import { PdpRefused, PdpUnavailable, type Violation } from "./errors.js";
import { BadRequestSchema, ErrorInfoSchema, StatusSchema } from "./google/rpc/details_pb.js";
import type { Token } from "./values.js";

// Codes for an error of the question or of its caller. All other codes: there is no answer now.
const REFUSALS: ReadonlySet<status> = new Set([
  status.INVALID_ARGUMENT,
  status.NOT_FOUND,
  status.ALREADY_EXISTS,
  status.PERMISSION_DENIED,
  status.UNAUTHENTICATED,
  status.FAILED_PRECONDITION,
  status.OUT_OF_RANGE,
  status.UNIMPLEMENTED,
]);
const DETAILS = "grpc-status-details-bin";
const REDACTED = "<token>";
const TOKEN_SHAPE = /eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?/g;

/** The error for a failed call. */
export function failureOf(error: ServiceError, token: Token): PdpUnavailable | PdpRefused {
  const code = status[error.code] ?? String(error.code);
  const message = withoutTokens(error.details, token);
  const { reason, violations } = detailsOf(error, token);
  // RESOURCE_EXHAUSTED has two meanings: a limit of the contract (a retry does not help), or a server at capacity.
  const overLimit = error.code === status.RESOURCE_EXHAUSTED && reason === "LIMIT_EXCEEDED";
  return REFUSALS.has(error.code) || overLimit
    ? new PdpRefused(message, code, reason, violations)
    : new PdpUnavailable(message, code, reason);
}

/** The details of a status; empty if they are unreadable: the status code alone shows that there is no answer. */
function detailsOf(error: ServiceError, token: Token): { reason: string; violations: Violation[] } {
  let reason = "";
  const violations: Violation[] = [];
  try {
    const [bytes] = error.metadata.get(DETAILS);
    if (!(bytes instanceof Uint8Array)) return { reason, violations };
    for (const detail of fromBinary(StatusSchema, bytes).details) {
      reason = anyUnpack(detail, ErrorInfoSchema)?.reason ?? reason;
      for (const violation of anyUnpack(detail, BadRequestSchema)?.fieldViolations ?? []) {
        violations.push({
          field: withoutTokens(violation.field, token),
          description: withoutTokens(violation.description, token),
        });
      }
    }
  } catch {
    return { reason: "", violations: [] };
  }
  return { reason: withoutTokens(reason, token), violations };
}

/**
 * Removes tokens from a peer's text, which may repeat the request. A token that was passed as another argument by
 * mistake is recognised by its form.
 */
function withoutTokens(text: string, token: Token): string {
  const secret = token.reveal();
  return withoutTokenShapes(secret.length > REDACTED.length ? text.replaceAll(secret, REDACTED) : text);
}

/** Removes everything that has the form of a session token. */
export function withoutTokenShapes(text: string): string {
  return text.replaceAll(TOKEN_SHAPE, REDACTED);
}
