// The error for a failed call: every status code has one, and none is an allow.

import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { type ServiceError, status } from "@grpc/grpc-js";

import { PdpRefused, PdpUnavailable, type Violation } from "./errors.js";
import { BadRequestSchema, ErrorInfoSchema, StatusSchema } from "./google/rpc/details_pb.js";
import type { Token } from "./values.js";

// Codes that mean: the question, or who asks it, is wrong. All the others: there is no answer now.
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

/** What came of a call that failed. */
export function failureOf(error: ServiceError, token: Token): PdpUnavailable | PdpRefused {
  const code = status[error.code] ?? String(error.code);
  const message = withoutTokens(error.details, token);
  const { reason, violations } = detailsOf(error, token);
  // RESOURCE_EXHAUSTED is both: a limit of the contract (asking again does not help), or a server that is full.
  const overLimit = error.code === status.RESOURCE_EXHAUSTED && reason === "LIMIT_EXCEEDED";
  return REFUSALS.has(error.code) || overLimit
    ? new PdpRefused(message, code, reason, violations)
    : new PdpUnavailable(message, code, reason);
}

/** Nothing where the details are unreadable: the status code alone already says that there is no answer. */
function detailsOf(error: ServiceError, token: Token): { reason: string; violations: Violation[] } {
  let reason = "";
  const violations: Violation[] = [];
  try {
    const [bytes] = error.metadata.get(DETAILS);
    if (!(bytes instanceof Uint8Array)) return { reason, violations };
    for (const detail of fromBinary(StatusSchema, bytes).details) {
      reason = anyUnpack(detail, ErrorInfoSchema)?.reason ?? reason;
      for (const one of anyUnpack(detail, BadRequestSchema)?.fieldViolations ?? []) {
        violations.push({
          field: withoutTokens(one.field, token),
          description: withoutTokens(one.description, token),
        });
      }
    }
  } catch {
    return { reason: "", violations: [] };
  }
  return { reason: withoutTokens(reason, token), violations };
}

/**
 * A peer may repeat what it was sent; the token must not come back in an error. A token that was passed as another
 * argument by mistake is known by its shape.
 */
function withoutTokens(text: string, token: Token): string {
  const secret = token.reveal();
  return withoutTokenShapes(secret.length > REDACTED.length ? text.replaceAll(secret, REDACTED) : text);
}

/** Without what has the shape of a session token. */
export function withoutTokenShapes(text: string): string {
  return text.replaceAll(TOKEN_SHAPE, REDACTED);
}
