// What goes into a guard and what comes out, free of gRPC.

const SHOWN = "Token(...)";

/** A session token that shows nothing of itself when it is printed, logged or formatted. */
export class Token {
  readonly #text: string;

  /** Wraps a session token, without `Bearer `. Throws TypeError for what is no string. */
  constructor(text: string) {
    if (typeof text !== "string") {
      throw new TypeError(`a token is a string, not ${nameOf(text)}; "" is a denial`);
    }
    this.#text = text;
  }

  /** The token itself, or one that is made of its text. */
  static of(token: string | Token): Token {
    return token instanceof Token ? token : new Token(token);
  }

  /** The token itself, for putting it on the wire. */
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

/** What JSON knows. Integers to 2^53, finite numbers, Unicode text, plain objects, 16 levels. */
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

/** What names a resource. */
export interface ResourceRef {
  /** A lower-case resource type, e.g. `course`. */
  readonly type: string;
  /** The application's own id; compared byte for byte. */
  readonly id: string;
}

/** What the actor wants to act upon. What the PDP has stored about it wins over what is said here. */
export interface Resource extends ResourceRef {
  /** Read by conditions as `resource.attributes`. */
  readonly attributes?: Attributes | null | undefined;
  /**
   * The Clerk organization that owns it, as your own database has it; never that of the token or of the request. Read
   * only where the PDP has not stored the resource; null: not known.
   */
  readonly organizationId?: string | null | undefined;
  /** The resource above it; only its type and id are sent. */
  readonly parent?: ResourceRef | null | undefined;
}

/** One question of a batch. */
export interface Question {
  /** `resource-type:action`, e.g. `course:edit`. */
  readonly permission: string;
  /** Null, or left out: the permission needs none. */
  readonly resource?: Resource | null;
  /** Facts of the request itself, read by conditions as `context`. */
  readonly context?: Attributes | null | undefined;
}

/** What a guard turns a denial into: 401 or 403. */
export type DenialKind = "unauthenticated" | "forbidden";

/**
 * Where a decision comes from. `decided`: by the PDP for this very question. `cached`: given by a sidecar to an
 * equal question before, and nothing that was told since touches it. `stayed_open`: the same, from a sidecar that
 * is cut off and was told to let this permission stay open.
 */
export type AnswerSource = "decided" | "cached" | "stayed_open";

/** Which factors are to be verified again, as Clerk's reverification calls them. */
export type Factor = "first_factor" | "second_factor" | "multi_factor";

/** A verification that would make a denial an allow. */
export interface StepUp {
  readonly factor: Factor;
  /** How long ago it may have been when the question is asked again. */
  readonly maxAgeSeconds: number;
}

/** Who the token speaks for, as the PDP has verified it. */
export interface Actor {
  readonly userId: string;
  readonly sessionId: string;
  /** The active Clerk organization; null: none. */
  readonly organizationId: string | null;
  /** Who impersonates the user; null: nobody. */
  readonly impersonatorId: string | null;
}

/** What a decision is made of. */
export interface DecisionFields {
  /** Whether the actor may. */
  readonly allowed: boolean;
  /** The name of a DecisionReason without its prefix, e.g. `TOKEN_EXPIRED`; the digits of one that is unknown here. */
  readonly reason: string;
  /** The reason as a sentence for people. Its wording may change. */
  readonly message: string;
  /** Null for an allow. */
  readonly denialKind: DenialKind | null;
  /** Null where the token was refused. */
  readonly actor: Actor | null;
  /** The key to the audit log. */
  readonly decisionId: string;
  /** The rule that decided; null: none. */
  readonly ruleId: string | null;
  /** The grant through which the rule applies; null: none. */
  readonly grantId: string | null;
  /** The revision of policy and facts that was read. */
  readonly revision: bigint;
  /** Until when the same question has the same answer; null: not at all. */
  readonly reusableUntil: Date | null;
  readonly source: AnswerSource;
  /** On a denial that only a fresher factor is missing from; null, or left out, otherwise. */
  readonly stepUp?: StepUp | null;
}

/** The PDP's answer. Every object is true in a condition: look at `decision.allowed`. */
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

/** What a value is, for the text of an error, without the value. */
export function nameOf(value: unknown): string {
  if (value === null) return "null";
  if (typeof value !== "object") return typeof value;
  return Array.isArray(value) ? "an array" : (value.constructor?.name ?? "an object");
}
