// The inputs and outputs of a guard, independent of gRPC.

const SHOWN = "Token(...)";

/** A session token whose text never appears when it is printed, logged or formatted. */
export class Token {
  readonly #text: string;

  /** Wraps a session token, without `Bearer `. Throws TypeError for a value that is not a string. */
  constructor(text: string) {
    if (typeof text !== "string") {
      throw new TypeError(`a token is a string, not ${nameOf(text)}; "" is a denial`);
    }
    this.#text = text;
  }

  /** The token itself, or a token made from its text. */
  static of(token: string | Token): Token {
    return token instanceof Token ? token : new Token(token);
  }

  /** The text of the token, to send it. */
  reveal(): string {
    return this.#text;
  }

  toString(): string {
    return SHOWN;
  }

  toJSON(): string {
    return SHOWN;
  }

  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return SHOWN;
  }
}

/** JSON values: integers to 2^53, finite numbers, Unicode text, plain objects, 16 levels. */
export type AttributeValue =
  | null
  | boolean
  | string
  | number
  | bigint
  | readonly AttributeValue[]
  | { readonly [key: string]: AttributeValue };

/** Attributes of a resource, or facts of a request. */
export type Attributes = { readonly [key: string]: AttributeValue };

/** The name of a resource. */
export interface ResourceRef {
  /** A lower-case resource type, for example `course`. */
  readonly type: string;
  /** The application's own id; compared byte for byte. */
  readonly id: string;
}

/** The resource that the actor wants to use. Values that the PDP has stored take precedence. */
export interface Resource extends ResourceRef {
  /** Conditions read them as `resource.attributes`. */
  readonly attributes?: Attributes | null | undefined;
  /**
   * The Clerk organization that owns it, from your own database; never that of the token or of the request. Used
   * only if the PDP has not stored the resource; null: unknown.
   */
  readonly organizationId?: string | null | undefined;
  /** The resource above it; only its type and id are sent. */
  readonly parent?: ResourceRef | null | undefined;
}

/** A question of a batch. */
export interface Question {
  /** `resource-type:action`, for example `course:edit`. */
  readonly permission: string;
  /** Null, or left out: the permission needs none. */
  readonly resource?: Resource | null;
  /** Facts of the request itself; conditions read them as `context`. */
  readonly context?: Attributes | null | undefined;
}

/** The kind of a denial, which decides the HTTP status: 401 or 403. */
export type DenialKind = "unauthenticated" | "forbidden";

/**
 * The source of a decision. `decided`: by the PDP for this very question. `cached`: made for an equal question
 * before, and no later change affects it. `stayed_open`: like `cached`, from a sidecar without a connection to the
 * PDP, in the fail-open window that is configured for this permission.
 */
export type AnswerSource = "decided" | "cached" | "stayed_open";

/** The factors to verify again, as levels of Clerk's reverification. */
export type Factor = "first_factor" | "second_factor" | "multi_factor";

/** A verification that would make a denial an allow. */
export interface StepUp {
  readonly factor: Factor;
  /** The greatest age of the verification when the question is asked again. */
  readonly maxAgeSeconds: number;
}

/** The actor of the token, as the PDP has verified it. */
export interface Actor {
  readonly userId: string;
  readonly sessionId: string;
  /** The active Clerk organization; null: none. */
  readonly organizationId: string | null;
  /** The user who impersonates the actor; null: none. */
  readonly impersonatorId: string | null;
}

/** The fields of a decision. */
export interface DecisionFields {
  /** Whether the actor is allowed. */
  readonly allowed: boolean;
  /**
   * The name of a DecisionReason without its prefix, for example `TOKEN_EXPIRED`; the number of a reason that only
   * a newer client knows.
   */
  readonly reason: string;
  /** The reason as a sentence for people. Its wording may change. */
  readonly message: string;
  /** Null for an allow. */
  readonly denialKind: DenialKind | null;
  /** Null if the token was refused. */
  readonly actor: Actor | null;
  /** The id of the decision in the audit log. */
  readonly decisionId: string;
  /** The rule that decided; null: none. */
  readonly ruleId: string | null;
  /** The grant through which the rule applies; null: none. */
  readonly grantId: string | null;
  /** The revision of the policy and facts that the decision used. */
  readonly revision: bigint;
  /** Until when the same question has the same answer; null: not reusable. */
  readonly reusableUntil: Date | null;
  readonly source: AnswerSource;
  /** The step up that would make a denial an allow; otherwise null, or left out. */
  readonly stepUp?: StepUp | null;
}

/** The PDP's answer. Every object is true in a condition: read `decision.allowed`. */
export interface Decision extends DecisionFields {}

// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: the constructor assigns all of them
export class Decision {
  constructor(fields: DecisionFields) {
    Object.assign(this, fields);
    Object.freeze(this);
  }

  /** The revision as its digits, because JSON has no bigint. */
  toJSON(): Record<string, unknown> {
    return { ...(this as DecisionFields), revision: this.revision.toString() };
  }
}

/** The type of a value, for the text of an error, without the value. */
export function nameOf(value: unknown): string {
  if (value === null) return "null";
  if (typeof value !== "object") return typeof value;
  return Array.isArray(value) ? "an array" : (value.constructor?.name ?? "an object");
}
