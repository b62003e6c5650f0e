// The session token from Clerk's own SDKs, for a request that has passed through one of them: `await auth()` of
// `@clerk/nextjs/server`, `getAuth(req)` of `@clerk/express`, `requestState.toAuth()` of `@clerk/backend`. They
// know every cookie that Clerk sets. Without options their `getToken` returns the token of the request unchanged,
// and makes no request itself. The PDP verifies it again.

import { nameOf, Token } from "./values.js";

/** What Clerk's SDKs report about a request. */
export interface ClerkAuth {
  getToken(): Promise<string | null>;
  /** The kind of the token; not every SDK reports it. */
  readonly tokenType?: string | null;
}

const SESSION_TOKEN = "session_token";

/**
 * The session token of a request; empty: there is none, or Clerk rejected it. Accepts Clerk's report about the
 * request, or a function that returns it. A machine's token (API key, M2M, OAuth) is not a session token, so the
 * result is empty too.
 *
 * Throws TypeError for a value that is not from Clerk, and whatever the function throws.
 */
export async function clerkToken(
  auth: ClerkAuth | null | Promise<ClerkAuth | null> | (() => ClerkAuth | null | Promise<ClerkAuth | null>),
): Promise<Token> {
  const found = await (typeof auth === "function" ? auth() : auth);
  if (found === null) return new Token(""); // `toAuth` of a request that Clerk redirects to a handshake
  if (typeof found?.getToken !== "function") {
    throw new TypeError(`what Clerk says has a function getToken; this is ${nameOf(found)}`);
  }
  if (typeof found.tokenType === "string" && found.tokenType !== SESSION_TOKEN) return new Token("");
  return new Token((await found.getToken()) ?? "");
}
