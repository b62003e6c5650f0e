// Finds the session token of a request. Knows no framework.

import { Token } from "./values.js";

/** The cookie in which Clerk's front ends keep the session token. */
export const SESSION_COOKIE = "__session";

/**
 * Headers: pairs as they were received; Node's `rawHeaders`, in which names and values alternate; or Web `Headers`
 * or an object, in which a repeated header is a list, or joined by a comma.
 */
export type HeadersLike =
  | readonly (readonly [string, string])[]
  | readonly string[]
  | Headers
  | Readonly<Record<string, string | readonly string[] | undefined>>;

/** The request of a server: Node's (also Express's), or that of the Web. */
export interface RequestLike {
  readonly headers: Headers | Readonly<Record<string, string | readonly string[] | undefined>>;
  readonly rawHeaders?: readonly string[];
}

/**
 * The headers of a request in the most exact form that its server has: `headers` of Node drops a second
 * Authorization.
 */
export function headersOf(request: RequestLike): HeadersLike {
  return request.rawHeaders ?? request.headers;
}

/**
 * The token of a request by docs/guards.md, "The token of a request": that of its only `Authorization: Bearer`
 * header, or, if there is no header of that scheme, that of the only session cookie. Empty: there is none.
 */
export function sessionToken(headers: HeadersLike, cookieName: string = SESSION_COOKIE): Token {
  return new Token(find(headers, cookieName));
}

function find(headers: HeadersLike, cookieName: string): string {
  const credentials: string[] = [];
  const cookies: string[] = [];
  for (const [name, value] of pairs(headers)) {
    const lower = name.toLowerCase();
    if (lower === "authorization") credentials.push(value);
    else if (lower === "cookie") cookies.push(value);
  }
  if (credentials.length > 1) return "";
  const [only] = credentials;
  return (only === undefined ? null : bearer(only)) ?? onlyCookie(cookies, cookieName);
}

function* pairs(headers: HeadersLike): Generator<readonly [string, string]> {
  if (isList(headers)) {
    for (let i = 0; i < headers.length; i++) {
      const header = headers[i] as string | readonly [string, string];
      if (typeof header === "string") yield [header, headers[++i] as string];
      else yield header;
    }
    return;
  }
  const entries = isHeaders(headers) ? headers.entries() : Object.entries(headers);
  for (const [name, value] of entries) {
    for (const item of typeof value === "string" ? [value] : (value ?? [])) {
      // Joined headers have a comma, which no session token contains: a value with a comma counts as two.
      if (name.toLowerCase() === "authorization") for (const part of item.split(",")) yield [name, part];
      else yield [name, item];
    }
  }
}

function isList(headers: HeadersLike): headers is readonly (readonly [string, string])[] | readonly string[] {
  return Array.isArray(headers);
}

/** Tests the methods, because frameworks have Headers classes of their own. */
function isHeaders(headers: HeadersLike): headers is Headers {
  return "entries" in headers && typeof headers.entries === "function";
}

const BEARER = /^bearer(?:[ \t]+(.*))?$/is;

/** The text after the scheme Bearer; null if the credentials have another scheme. */
function bearer(credentials: string): string | null {
  const found = BEARER.exec(trimmed(credentials));
  return found && (found[1] ?? "");
}

/** The value of the only cookie with this name, as it was sent. RFC 6265, section 4.2.1. */
function onlyCookie(headers: readonly string[], wanted: string): string {
  const found: string[] = [];
  for (const pair of headers.join(";").split(";")) {
    const equal = pair.indexOf("=");
    const [name, value] = equal < 0 ? [pair, ""] : [pair.slice(0, equal), pair.slice(equal + 1)];
    if (trimmed(name) === wanted) found.push(trimmed(value));
  }
  return found.length === 1 ? (found[0] as string) : "";
}

/** Removes spaces and tabs at both ends; `trim` would remove more. */
function trimmed(text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && isSpace(text[start])) start++;
  while (end > start && isSpace(text[end - 1])) end--;
  return text.slice(start, end);
}

function isSpace(character: string | undefined): boolean {
  return character === " " || character === "\t";
}
