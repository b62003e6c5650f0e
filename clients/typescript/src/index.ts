// The guard: a line before the business logic that asks the policy decision point.
//
//   const guard = new Guard("dns:///pdp.internal:50051", { tls: { ca: "ca.pem" }, apiKey: key });
//   const actor = await guard.require(token, "course:edit", { type: "course", id });
//
// In: the request's Clerk session token, a permission, a resource, facts of the request. Out: one of three
// distinct outcomes. A decision (`check`, `batch`: allow or deny); a denial thrown (`require`: Unauthenticated or
// Forbidden); or no decision (PdpUnavailable, PdpRefused), which is never an allow.
//
// - An allow is returned only for an answer that allows, names the actor and is consistent. Every status
//   but OK and every other answer is an error.
// - A call ends within its deadline, retries included.
// - No error and no printed value contains a token or an API key.
// - It decides nothing, reads no claim of the token and caches nothing.

export {
  Denied,
  Forbidden,
  GuardError,
  PdpRefused,
  PdpUnavailable,
  RouteRefused,
  Unauthenticated,
  type Violation,
} from "./errors.js";
export { type Asking, type AskOptions, Guard, type GuardOptions, type PlanOptions, RequestGuard } from "./guard.js";
export { type HeadersLike, type RequestLike, SESSION_COOKIE, sessionToken } from "./headers.js";
export type { Log } from "./logging.js";
export { BATCH_QUESTIONS_MAX } from "./messages.js";
export { type Held, PermissionSet } from "./permissions.js";
export { FilterUnsupported, isEverything, isNothing, type Plan, PlanInvalid, planFromJSON } from "./plans.js";
export { type Refusal, refusalOf, refuse } from "./refusals.js";
export { PUBLIC, RouteMapInvalid, Routes } from "./routes.js";
export type { TlsOptions } from "./transport.js";
export {
  type Actor,
  type AnswerSource,
  type Attributes,
  type AttributeValue,
  Decision,
  type DenialKind,
  type Factor,
  type Question,
  type Resource,
  type ResourceRef,
  type StepUp,
  Token,
} from "./values.js";
