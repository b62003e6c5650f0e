// Converts between values and messages of the contract. Only this file knows both, and it decides whether an
// answer is valid.

import { create, type DescField, fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import type { Timestamp } from "@bufbuild/protobuf/wkt";

import { toStruct } from "./attributes.js";
import { PdpUnavailable } from "./errors.js";
import * as queries from "./pdpapi/v1/access_query_service_pb.js";
import * as core from "./pdpapi/v1/core_pb.js";
import * as service from "./pdpapi/v1/decision_service_pb.js";
import { type Held, PermissionSet } from "./permissions.js";
import { isNothing, type Plan, PlanInvalid, planFromMessage } from "./plans.js";
import {
  type Actor,
  type AnswerSource,
  Decision,
  type DenialKind,
  type Factor,
  nameOf,
  type Question,
  type Resource,
  type ResourceRef,
  type StepUp,
  type Token,
} from "./values.js";

/** The most questions of a batch. */
export const BATCH_QUESTIONS_MAX = 1_000;

const REVISION_MAX = 2n ** 64n - 1n;
// The years of RFC 3339 and of google.protobuf.Timestamp, 0001 to 9999.
const SECONDS_MIN = -62_135_596_800n;
const SECONDS_MAX = 253_402_300_799n;

const DENIAL_KINDS = new Map<core.DenialKind, DenialKind>([
  [core.DenialKind.UNAUTHENTICATED, "unauthenticated"],
  [core.DenialKind.FORBIDDEN, "forbidden"],
]);
const SOURCES = new Map<core.AnswerSource, AnswerSource>([
  [core.AnswerSource.UNSPECIFIED, "decided"],
  [core.AnswerSource.CACHED, "cached"],
  [core.AnswerSource.STAYED_OPEN, "stayed_open"],
]);
const FACTORS = new Map<service.StepUp_Factor, Factor>([
  [service.StepUp_Factor.FIRST, "first_factor"],
  [service.StepUp_Factor.SECOND, "second_factor"],
  [service.StepUp_Factor.BOTH, "multi_factor"],
]);

/** The bytes of a question. Throws TypeError and RangeError if it cannot be sent. */
export function checkRequest(token: Token, question: Question, atLeastRevision: bigint | number): Uint8Array {
  const message = create(service.CheckRequestSchema, {
    ...itemOf(question),
    actorToken: sendable(token),
    atLeastRevision: revisionOf(atLeastRevision),
  });
  addStruct(message, service.CheckRequestSchema.field.context, question.context);
  return toBinary(service.CheckRequestSchema, message);
}

/** The bytes of many questions. Throws RangeError for none, and for more than 1,000, and what checkRequest throws. */
export function batchRequest(
  token: Token,
  questions: readonly Question[],
  atLeastRevision: bigint | number,
): Uint8Array {
  if (!Array.isArray(questions)) throw new TypeError(`the questions are an array, not ${nameOf(questions)}`);
  if (questions.length < 1 || questions.length > BATCH_QUESTIONS_MAX) {
    throw new RangeError(
      `a batch has 1 to ${BATCH_QUESTIONS_MAX} questions, not ${questions.length} ` +
        "(they are not split: two calls may see two revisions)",
    );
  }
  const items = Array.from(questions, (question: Question) => {
    const item = create(service.CheckItemSchema, itemOf(question));
    addStruct(item, service.CheckItemSchema.field.context, question.context);
    return item;
  });
  return toBinary(
    service.BatchCheckRequestSchema,
    create(service.BatchCheckRequestSchema, {
      actorToken: sendable(token),
      items,
      atLeastRevision: revisionOf(atLeastRevision),
    }),
  );
}

/**
 * The bytes of a request for all permissions on resources. Throws RangeError for more than 1,000, and what
 * checkRequest throws.
 */
export function permissionsRequest(
  token: Token,
  resources: readonly Resource[],
  context: unknown,
  atLeastRevision: bigint | number,
): Uint8Array {
  if (resources.length > BATCH_QUESTIONS_MAX) {
    throw new RangeError(`at most ${BATCH_QUESTIONS_MAX} resources, not ${resources.length}`);
  }
  const message = create(queries.ListAllowedPermissionsRequestSchema, {
    actorToken: sendable(token),
    resources: Array.from(resources, resourceOf),
    atLeastRevision: revisionOf(atLeastRevision),
  });
  addStruct(message, queries.ListAllowedPermissionsRequestSchema.field.context, context);
  return toBinary(queries.ListAllowedPermissionsRequestSchema, message);
}

/** The bytes that ask for a plan. Throws what checkRequest throws. */
export function planRequest(
  token: Token,
  permission: string,
  resourceType: string,
  context: unknown,
  allowSuperset: boolean,
  atLeastRevision: bigint | number,
): Uint8Array {
  const message = create(queries.PlanResourcesRequestSchema, {
    actorToken: sendable(token),
    permission: textOf(permission, "permission"),
    resourceType: textOf(resourceType, "resourceType"),
    atLeastRevision: revisionOf(atLeastRevision),
    allowSuperset,
  });
  addStruct(message, queries.PlanResourcesRequestSchema.field.context, context);
  return toBinary(queries.PlanResourcesRequestSchema, message);
}

/**
 * The token as it is sent. A token that is not Unicode text cannot be sent and proves nothing: the empty token
 * replaces it.
 */
function sendable(token: Token): string {
  const text = token.reveal();
  return text.isWellFormed() ? text : "";
}

function itemOf(question: Question): { permission: string; resource?: core.Resource } {
  if (typeof question !== "object" || question === null) {
    throw new TypeError(`a question is an object with a permission, not ${nameOf(question)}`);
  }
  const permission = textOf(question.permission, "permission");
  if (Object.hasOwn(question, "resource") && question.resource === undefined) {
    // Usually a mistake; without its resource it would be a different question, which might be allowed.
    throw new TypeError("the resource is undefined; say null where the permission needs none");
  }
  const { resource } = question;
  if (resource === undefined || resource === null) return { permission };
  return { permission, resource: resourceOf(resource) };
}

function resourceOf(resource: Resource): core.Resource {
  if (resource === null) throw new TypeError("a resource is an object with type and id, not null");
  const message = create(core.ResourceSchema, {
    ...refOf(resource, "resource"),
    organizationId: textOf(resource.organizationId ?? "", "resource.organizationId"),
  });
  if (resource.parent !== undefined && resource.parent !== null) {
    message.parent = create(core.ResourceRefSchema, refOf(resource.parent, "resource.parent"));
  }
  addStruct(message, core.ResourceSchema.field.attributes, resource.attributes);
  return message;
}

function refOf(resource: ResourceRef, path: string): { type: string; id: string } {
  if (typeof resource !== "object") {
    throw new TypeError(`the ${path} is an object with type and id, not ${nameOf(resource)}`);
  }
  return { type: textOf(resource.type, `${path}.type`), id: textOf(resource.id, `${path}.id`) };
}

function textOf(value: unknown, path: string): string {
  if (typeof value !== "string") throw new TypeError(`${path} must be a string, not ${nameOf(value)}`);
  if (!value.isWellFormed()) throw new RangeError(`${path}: not Unicode text (a lone surrogate)`);
  return value;
}

function revisionOf(revision: bigint | number): bigint {
  if (typeof revision !== "bigint" && !Number.isSafeInteger(revision)) {
    throw new TypeError("atLeastRevision must be a bigint, or an integer that is exact");
  }
  const exact = BigInt(revision);
  if (exact < 0n || exact > REVISION_MAX) throw new RangeError("atLeastRevision must be 0 to 2^64 - 1");
  return exact;
}

/** Adds an encoded Struct to the fields of a message, as if it had been received. */
function addStruct(message: Message, field: DescField, attributes: unknown): void {
  if (attributes === undefined || attributes === null) return;
  const data = new BinaryWriter().bytes(toStruct(attributes, field.name)).finish();
  message.$unknown = [{ no: field.number, wireType: WireType.LengthDelimited, data }];
}

/** The decision in an answer to Check. Throws PdpUnavailable if the answer is not valid. */
export function decisionFromCheck(bytes: Uint8Array): Decision {
  const answer = decoded(() => fromBinary(service.CheckResponseSchema, bytes));
  return decisionOf(answer, actorOf(answer.actor));
}

/** The decisions in an answer to so many questions. Throws PdpUnavailable if it is not valid. */
export function decisionsFromBatch(bytes: Uint8Array, count: number): Decision[] {
  const answer = decoded(() => fromBinary(service.BatchCheckResponseSchema, bytes));
  if (answer.results.length !== count) {
    throw noAnswer(`${answer.results.length} results to ${count} questions`);
  }
  const actor = actorOf(answer.actor);
  return answer.results.map((result) => decisionOf(result, actor));
}

/** The permissions on each of these resources in an answer. Throws PdpUnavailable if it contradicts itself. */
export function permissionsFromAnswer(bytes: Uint8Array, resources: readonly Resource[]): PermissionSet {
  const answer = decoded(() => fromBinary(queries.ListAllowedPermissionsResponseSchema, bytes));
  const { results, refusal } = answer;
  if (results.length !== resources.length) {
    throw noAnswer(`${results.length} results for ${resources.length} resources`);
  }
  if (refusal !== undefined && !DENIAL_KINDS.has(refusal.denialKind)) {
    throw noAnswer(`a refusal of unknown kind ${refusal.denialKind}`);
  }
  const may = actorOf(answer.actor) !== null && refusal === undefined;
  const held: Held[] = [];
  const denied: Held[] = [];
  results.forEach((result, index) => {
    const { type, id } = resources[index] as Resource;
    if (result.allowed.length > 0 && !may) throw noAnswer("permissions without an actor");
    for (const permission of result.allowed) {
      if (!permission.startsWith(`${type}:`) || result.denied.includes(permission)) {
        throw noAnswer("a permission of another type, or one that is denied too");
      }
      held.push({ permission, type, id });
    }
    for (const permission of result.denied) denied.push({ permission, type, id });
  });
  const refused = new PermissionSet(denied);
  return new PermissionSet(
    held.filter(({ permission, type = "", id = "" }) => !refused.holds(permission, { type, id })),
  );
}

/** The plan of an answer, or PdpUnavailable if it is not the answer to this question. */
export function planFromAnswer(
  bytes: Uint8Array,
  permission: string,
  resourceType: string,
  allowSuperset: boolean,
): Plan {
  const answer = decoded(() => fromBinary(queries.PlanResourcesResponseSchema, bytes));
  if (answer.plan === undefined) throw noAnswer("it has no plan");
  let plan: Plan;
  try {
    plan = planFromMessage(answer.plan);
  } catch (error) {
    if (error instanceof PlanInvalid) throw noAnswer(error.message);
    throw error;
  }
  const isRefused = answer.refusal !== undefined || actorOf(answer.actor) === null;
  if (
    plan.permission !== permission ||
    plan.resourceType !== resourceType ||
    (isRefused && !isNothing(plan)) ||
    (plan.checkEachRow && !allowSuperset)
  ) {
    throw noAnswer("a plan that contradicts the question or itself");
  }
  return plan;
}

function decoded<T>(decode: () => T): T {
  try {
    return decode();
  } catch {
    throw noAnswer("it is not a message");
  }
}

function actorOf(actor: core.Actor | undefined): Actor | null {
  if (actor === undefined) return null;
  if (actor.userId === "") throw noAnswer("an actor without a user");
  return Object.freeze({
    userId: actor.userId,
    sessionId: actor.sessionId,
    organizationId: actor.organizationId || null,
    impersonatorId: actor.impersonatorId || null,
  });
}

function decisionOf(answer: service.CheckResponse, actor: Actor | null): Decision {
  const kind = DENIAL_KINDS.get(answer.denialKind) ?? null;
  const allowed = answer.decision === core.Decision.ALLOW;
  if (allowed) {
    if (answer.denialKind !== core.DenialKind.UNSPECIFIED) throw noAnswer("an allow with a kind of denial");
    if (actor === null) throw noAnswer("an allow without an actor");
  } else {
    if (answer.decision !== core.Decision.DENY) throw noAnswer(`decision ${answer.decision}`);
    if (kind === null) throw noAnswer(`a denial of unknown kind ${answer.denialKind}`);
  }
  const source = SOURCES.get(answer.source);
  if (source === undefined) throw noAnswer(`an answer of unknown source ${answer.source}`);
  return new Decision({
    allowed,
    // A newer PDP knows more reasons; the decision holds anyway.
    reason: core.DecisionReason[answer.reason] ?? String(answer.reason),
    message: answer.message,
    denialKind: kind,
    actor,
    decisionId: answer.decisionId,
    ruleId: answer.ruleId || null,
    grantId: answer.grantId || null,
    revision: answer.revision,
    reusableUntil: timeOf(answer.reusableUntil),
    source,
    stepUp: allowed ? null : stepUpOf(answer.stepUp),
  });
}

/** Null also for a factor that only a newer PDP knows: the denial holds anyway. */
function stepUpOf(stepUp: service.StepUp | undefined): StepUp | null {
  const factor = stepUp && FACTORS.get(stepUp.factor);
  return factor ? Object.freeze({ factor, maxAgeSeconds: Number(stepUp.maxAge?.seconds ?? 0n) }) : null;
}

function timeOf(time: Timestamp | undefined): Date | null {
  if (time === undefined) return null;
  const { seconds, nanos } = time;
  if (seconds < SECONDS_MIN || seconds > SECONDS_MAX || nanos < 0 || nanos > 999_999_999) {
    throw noAnswer("reusable_until is not a time");
  }
  return new Date(Number(seconds) * 1_000 + Math.floor(nanos / 1e6));
}

function noAnswer(what: string): PdpUnavailable {
  return new PdpUnavailable(`the PDP sent an invalid answer: ${what}`);
}
