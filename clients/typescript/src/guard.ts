// The guard: asks within a deadline and returns the decision.

import type { DescMethod } from "@bufbuild/protobuf";
import { type Client, type ClientUnaryCall, type Metadata, type ServiceError, status } from "@grpc/grpc-js";

import { type Denied, Forbidden, PdpUnavailable, Unauthenticated } from "./errors.js";
import { failureOf } from "./failures.js";
import { headersOf, type RequestLike, SESSION_COOKIE, sessionToken } from "./headers.js";
import {
  batchRequest,
  checkRequest,
  decisionFromCheck,
  decisionsFromBatch,
  permissionsFromAnswer,
  permissionsRequest,
  planFromAnswer,
  planRequest,
} from "./messages.js";
import { AccessQueryService } from "./pdpapi/v1/access_query_service_pb.js";
import { PolicyDecisionService } from "./pdpapi/v1/decision_service_pb.js";
import { PermissionSet, permissionSet } from "./permissions.js";
import type { Plan } from "./plans.js";
import { type ConnectionOptions, callerMetadata, connect } from "./transport.js";
import { type Actor, type Attributes, type Decision, type Question, type Resource, Token } from "./values.js";

const DEADLINE_MS = 250;
const RETRY_MS_FIRST = 25;
const RETRY_MS_MAX = 1_000;
const OPTION_NAMES = new Set(["tls", "apiKey", "insecure", "deadlineMs", "cookieName"]);

/** The options of a guard. */
export interface GuardOptions extends ConnectionOptions {
  /** Bounds each call as a whole, retries included; 250 ms by default. */
  readonly deadlineMs?: number | undefined;
  /**
   * The cookie of the session token; `__session` by default, `__session_<suffix>` if several Clerk applications
   * share a domain.
   */
  readonly cookieName?: string | undefined;
}

/** Optional parts of a question. */
export interface AskOptions {
  /** The revision of a write that the answer must reflect. */
  readonly atLeastRevision?: bigint | number | undefined;
}

/** What a request for a plan says besides token, permission and resource type. */
export interface PlanOptions extends AskOptions {
  /** Facts of the request, the same for all rows. */
  readonly context?: Attributes | null | undefined;
  /** Takes more rows than are allowed if a condition cannot be expressed. Then look at `plan.checkEachRow`. */
  readonly allowSuperset?: boolean | undefined;
}

/** Nothing; or a resource (null: the permission needs none), facts of the request, and options. */
export type Asking =
  | []
  | [resource: Resource | null, context?: Attributes | null | undefined, options?: AskOptions | undefined];

/** Asks a PDP. Create it once per process and keep it: it keeps its connections. */
export class Guard {
  readonly #client: Client;
  readonly #metadata: Metadata;
  readonly #deadlineMs: number;
  readonly #cookieName: string;
  readonly #calls = new Set<ClientUnaryCall>();
  #closed = false;

  /**
   * A guard for the PDP at a target: `host:port`, `dns:///host:port` (all addresses of the name take turns),
   * `ipv4:10.0.0.1:50051,10.0.0.2:50051`, `ipv6:[::1]:50051`, `unix:/run/pdp.sock`. Without `tls` the connection is
   * in clear text, which is refused beyond loopback unless `insecure` is set. The constructor does not wait for a
   * connection: the first call does.
   *
   * Throws TypeError or RangeError for invalid options, and whatever reading PEM files throws.
   */
  constructor(target: string, options: GuardOptions = {}) {
    for (const name of Object.keys(options)) {
      // `apikey` would ask without a key, and `TLS` in clear text.
      if (!OPTION_NAMES.has(name)) throw new TypeError(`a guard has no option ${name}`);
    }
    const { deadlineMs = DEADLINE_MS, cookieName = SESSION_COOKIE } = options;
    if (!(Number.isFinite(deadlineMs) && deadlineMs > 0)) throw new RangeError("deadlineMs must be above 0");
    if (typeof cookieName !== "string" || cookieName === "") throw new TypeError("cookieName must be a name");
    this.#deadlineMs = deadlineMs;
    this.#cookieName = cookieName;
    this.#metadata = callerMetadata(options.apiKey);
    this.#client = connect(target, options);
  }

  /** Closes the connections. Calls in flight and later calls throw PdpUnavailable. */
  close(): void {
    this.#closed = true;
    for (const call of this.#calls) call.cancel();
    this.#client.close();
  }

  /** The token of a request, by docs/guards.md. Empty if there is none, or more than one. */
  sessionToken(request: RequestLike): Token {
    return sessionToken(headersOf(request), this.#cookieName);
  }

  /** This guard for the token of a request: `await guard.of(request).require("course:edit", course)`. */
  of(request: RequestLike): RequestGuard {
    return new RequestGuard(this, this.sessionToken(request));
  }

  /**
   * Asks whether the bearer of the token may use a permission on a resource. Returns allows and denials: read
   * `decision.allowed`. Leave the resource out if the permission needs none; an `undefined` one is a mistake.
   *
   * Throws PdpUnavailable or PdpRefused if there is no answer, TypeError or RangeError for arguments that cannot be
   * sent.
   */
  async check(token: string | Token, permission: string, ...asking: Asking): Promise<Decision> {
    const [resource, context, options] = asking;
    const secret = Token.of(token);
    const about = asking.length > 0 ? { resource } : {};
    const question = { permission, ...about, context: context ?? null } as Question;
    const request = checkRequest(secret, question, wishOf(options));
    return decisionFromCheck(await this.#ask(pathOf(PolicyDecisionService.method.check), request, secret));
  }

  /**
   * Returns the verified actor if they are allowed. Throws Unauthenticated (401) or Forbidden (403) if they are
   * not, and otherwise what `check` throws.
   */
  async require(token: string | Token, permission: string, ...asking: Asking): Promise<Actor> {
    const decision = await this.check(token, permission, ...asking);
    if (decision.allowed === true && decision.actor !== null) return decision.actor;
    throw denied(decision);
  }

  /**
   * `require` for the permission `role:<role>`, which the policy declares and gives to the role. Reads no claim of
   * the token.
   */
  async requireRole(token: string | Token, role: string): Promise<Actor> {
    if (typeof role !== "string") throw new TypeError("a role is a string");
    return this.require(token, `role:${role}`);
  }

  /**
   * Asks 1 to 1,000 questions of an actor. The decisions have the order of the questions and are all made at the
   * same revision; read the `allowed` of each. Throws what `check` throws.
   */
  async batch(token: string | Token, questions: readonly Question[], options?: AskOptions): Promise<Decision[]> {
    const secret = Token.of(token);
    const request = batchRequest(secret, questions, wishOf(options));
    const count = questions.length;
    return decisionsFromBatch(
      await this.#ask(pathOf(PolicyDecisionService.method.batchCheck), request, secret),
      count,
    );
  }

  /**
   * Asks which of at most 1,000 questions are allowed, for display in a user interface. It guards nothing. For a
   * refused token, none is. Throws what `batch` throws.
   */
  async can(token: string | Token, questions: readonly Question[]): Promise<PermissionSet> {
    const asked = [...questions];
    if (asked.length === 0) return new PermissionSet();
    return permissionSet(asked, await this.batch(token, asked));
  }

  /**
   * Returns all declared permissions that the actor has on a resource, or on each of several resources, for display
   * in a user interface. It guards nothing. If a resource is given twice, a permission on it must hold both times.
   * A refused token has no permissions. All resources together may have at most 1,000 declared permissions of their
   * types. Throws what `check` throws.
   */
  async permissions(
    token: string | Token,
    resources: Resource | readonly Resource[],
    context?: Attributes | null,
    options?: AskOptions,
  ): Promise<PermissionSet> {
    const secret = Token.of(token);
    const asked: readonly Resource[] = Array.isArray(resources) ? [...resources] : [resources as Resource];
    if (asked.length === 0) return new PermissionSet();
    const request = permissionsRequest(secret, asked, context ?? null, wishOf(options));
    const method = AccessQueryService.method.listAllowedPermissions;
    return permissionsFromAnswer(await this.#ask(pathOf(method), request, secret), asked);
  }

  /**
   * A filter for the rows of a resource type that only the application stores: hand it to `where` of
   * `pdp-client/prisma`. A refused token gives a plan that takes nothing. Throws what `check` throws; PdpRefused with
   * reason FILTER_UNSUPPORTED names the rule and the operator that no filter expresses.
   */
  async plan(
    token: string | Token,
    permission: string,
    resourceType: string,
    { context = null, allowSuperset = false, ...options }: PlanOptions = {},
  ): Promise<Plan> {
    const secret = Token.of(token);
    const request = planRequest(secret, permission, resourceType, context, allowSuperset, wishOf(options));
    const answer = await this.#ask(pathOf(AccessQueryService.method.planResources), request, secret);
    return planFromAnswer(answer, permission, resourceType, allowSuperset);
  }

  /**
   * Calls until there is an answer, a permanent error, or no time left. A retry is safe because no decision changes
   * anything.
   */
  async #ask(path: string, request: Uint8Array, token: Token): Promise<Uint8Array> {
    const ends = performance.now() + this.#deadlineMs;
    let longest = RETRY_MS_FIRST;
    let failure: ServiceError | null = null;
    for (;;) {
      if (this.#closed) throw new PdpUnavailable("the guard is closed");
      const { answer, error } = await this.#call(path, request, ends - performance.now());
      if (error === null) return answer;
      // If a retry ran out of time, the failure before it says more.
      if (failure === null || error.code !== status.DEADLINE_EXCEEDED) failure = error;
      const again = error.code === status.UNAVAILABLE || error.code === status.CANCELLED;
      // Full jitter, so that guards that failed together do not retry together.
      const pause = Math.random() * longest;
      if (this.#closed || !again || performance.now() + pause >= ends) break;
      longest = Math.min(2 * longest, RETRY_MS_MAX);
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
    throw failureOf(failure, token);
  }

  #call(path: string, request: Uint8Array, leftMs: number): Promise<Outcome> {
    return new Promise((resolve) => {
      const call = this.#client.makeUnaryRequest<Uint8Array, Uint8Array>(
        path,
        asBuffer,
        asIs,
        request,
        this.#metadata,
        { deadline: Date.now() + leftMs },
        (error, answer) => {
          this.#calls.delete(call);
          resolve(error === null ? { answer: answer as Uint8Array, error } : { answer: null, error });
        },
      );
      this.#calls.add(call);
    });
  }
}

/** A guard for the bearer of a token. Its methods are those of Guard, without the token. */
export class RequestGuard {
  readonly #guard: Guard;
  readonly #token: Token;

  constructor(guard: Guard, token: string | Token) {
    this.#guard = guard;
    this.#token = Token.of(token);
  }

  check(permission: string, ...asking: Asking): Promise<Decision> {
    return this.#guard.check(this.#token, permission, ...asking);
  }

  require(permission: string, ...asking: Asking): Promise<Actor> {
    return this.#guard.require(this.#token, permission, ...asking);
  }

  requireRole(role: string): Promise<Actor> {
    return this.#guard.requireRole(this.#token, role);
  }

  batch(questions: readonly Question[], options?: AskOptions): Promise<Decision[]> {
    return this.#guard.batch(this.#token, questions, options);
  }

  can(questions: readonly Question[]): Promise<PermissionSet> {
    return this.#guard.can(this.#token, questions);
  }

  permissions(
    resources: Resource | readonly Resource[],
    context?: Attributes | null,
    options?: AskOptions,
  ): Promise<PermissionSet> {
    return this.#guard.permissions(this.#token, resources, context, options);
  }

  plan(permission: string, resourceType: string, options?: PlanOptions): Promise<Plan> {
    return this.#guard.plan(this.#token, permission, resourceType, options);
  }
}

type Outcome = { answer: Uint8Array; error: null } | { answer: null; error: ServiceError };

/** The HTTP `:path` of a method. */
function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function asIs(bytes: Buffer): Uint8Array {
  return bytes;
}

function wishOf(options: AskOptions = {}): bigint | number {
  // A misspelled option would be ignored.
  for (const name of Object.keys(options)) {
    if (name !== "atLeastRevision") throw new TypeError(`a question has no option ${name}`);
  }
  return options.atLeastRevision ?? 0n;
}

function denied(decision: Decision): Denied {
  return decision.denialKind === "unauthenticated" ? new Unauthenticated(decision) : new Forbidden(decision);
}
