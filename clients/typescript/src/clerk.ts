// The session token by Clerk's own SDKs, where a request has passed through one: `await auth()` of
// `@clerk/nextjs/server`, `getAuth(req)` of `@clerk/express`, `requestState.toAuth()` of `@clerk/backend`. They know
// every cookie that Clerk sets. Without options their `getToken` gives the token of the request as it came, and asks
// nobody. The PDP verifies it again.

import { nameOf, Token } from "./values.js";

/** What Clerk's SDKs say about a request. */
export interface ClerkAuth {
  getToken(): Promise<string | null>;
  /** What kind of token it is; not every SDK says. */
  readonly tokenType?: string | null;
}

const SESSION_TOKEN = "session_token";

/**
 * The session token of a request; empty: there is none, or Clerk did not take it. Takes what Clerk says about the
 * request, or a function that gives it. A machine's token (API key, M2M, OAuth) is not a session token: empty too.
 *
 * Throws TypeError for what is not from Clerk, and what the function throws.
 */
export async function clerkToken(
  auth: ClerkAuth | null | Promise<ClerkAuth | null> | (() => ClerkAuth | null | Promise<ClerkAuth | null>),
): Promise<Token> {
  const found = await (typeof auth === "function" ? auth() : auth);
  if (found === null) return new Token(""); // `toAuth` of a request that Clerk sends through a handshake
  if (typeof found?.getToken !== "function") {
    throw new TypeError(`what Clerk says has a function getToken; this is ${nameOf(found)}`);
  }
  if (typeof found.tokenType === "string" && found.tokenType !== SESSION_TOKEN) return new Token("");
  return new Token((await found.getToken()) ?? "");
}
