// The log of the adapters: refused requests that the PDP's audit log does not have. Knows no framework.

import { type GuardError, PdpRefused, PdpUnavailable, RouteRefused } from "./errors.js";
import { withoutTokenShapes } from "./failures.js";

/** Receives a line of text: `console.warn`, or `(text) => logger.warn(text)`. */
export type Log = (text: string) => void;

/** The request of a line: its method, and its target as it was received. */
export interface LoggedRequest {
  readonly method: string;
  readonly target: string;
}

const TEXT_CHARACTERS_MAX = 500;
const METHOD_CHARACTERS_MAX = 32;
// The part after the path, also if it is escaped: a query may contain secrets, and so may `;jsessionid=`.
const AFTER_PATH = /[?#;]|%(?:3f|23|3b)/i;

/** Logs why a request was refused. Denials are not logged: the PDP has them in its audit log. */
export function logRefusal(error: GuardError, log: Log, request?: LoggedRequest): void {
  const text = textOf(error);
  if (text !== null) log(request ? `${text} (${requestText(request)})` : text);
}

function textOf(error: GuardError): string | null {
  if (error instanceof RouteRefused) return `route refused: ${error.reason}`;
  if (error instanceof PdpUnavailable || error instanceof PdpRefused) {
    return `no decision: ${printable(error.message, TEXT_CHARACTERS_MAX)}`;
  }
  return null;
}

function requestText({ method, target }: LoggedRequest): string {
  // A target that is not a path may be a URL, and a URL may contain a password.
  const [path = ""] = target.startsWith("/") ? target.split(AFTER_PATH, 1) : ["<no path>"];
  return `${printable(method, METHOD_CHARACTERS_MAX)} ${printable(path, TEXT_CHARACTERS_MAX)}`;
}

/** A single line of printable ASCII: strangers write these texts, and logs are read in a terminal. */
function printable(text: string, charactersMax: number): string {
  const shown = withoutTokenShapes(text).replace(
    /[^ -~]|\\/gu,
    (character) => `\\u{${(character.codePointAt(0) as number).toString(16)}}`,
  );
  return shown.length <= charactersMax ? shown : `${shown.slice(0, charactersMax)}...`;
}
