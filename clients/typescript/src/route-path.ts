// Splits a request's path, as it was received, into segments, or refuses it. Proxies, frameworks and file systems
// read a path differently unless it is plain. So a path that is not plain is refused instead of repaired.

import { RouteRefused } from "./errors.js";

const PATH_BYTES_MAX = 8 * 1024;
const UNSAFE = /[^!-~]|[\\;#]|\/\/|%(?![0-9A-Fa-f]{2})/;
// Separators, and characters that end a path for some programs; `%` would be an escape for a program that decodes
// twice, and some programs cut off a trailing space (CVE-2016-5007).
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are refused
const UNSAFE_DECODED = /[\x00-\x1f\x7f-\x9f/\\%;?#]|^ | $/;
// Letters beyond ASCII that case-insensitive programs take for an ASCII letter: dotted I, dotless i, long s,
// Kelvin sign.
const FOLDED: Readonly<Record<string, string>> = { "\u0130": "i", "\u0131": "i", "\u017f": "s", "\u212a": "k" };

/** The segments of a path in three forms. */
export interface Path {
  readonly sent: readonly string[];
  /** Percent-decoded once. */
  readonly decoded: readonly string[];
  /** Decoded and case-folded. */
  readonly folded: readonly string[];
  /** Whether it ends with a slash; so does `/`, which has no segment. */
  readonly slash: boolean;
}

/** A request target without its query. */
export function pathOf(target: string): string {
  const query = target.indexOf("?");
  return query < 0 ? target : target.slice(0, query);
}

/** Reads the path of a request target without its query. Throws RouteRefused. */
export function readPath(target: string): Path {
  const path = pathOf(target);
  if (!path.startsWith("/") || path.length > PATH_BYTES_MAX || UNSAFE.test(path)) {
    throw new RouteRefused("ambiguous_path");
  }
  const sent = path.slice(1).split("/");
  const slash = sent.at(-1) === "";
  if (slash) sent.pop();
  const decoded = sent.map(decode);
  if (decoded.includes(".") || decoded.includes("..")) throw new RouteRefused("ambiguous_path");
  return { sent, decoded, folded: decoded.map(fold), slash };
}

/** Folds case: texts that a program could take for the same ASCII word become equal. */
export function fold(text: string): string {
  return text.replace(/[\u0130\u0131\u017f\u212a]/g, (letter) => FOLDED[letter] as string).toLowerCase();
}

function decode(segment: string): string {
  if (!segment.includes("%")) return segment;
  let text: string;
  try {
    text = decodeURIComponent(segment);
  } catch {
    throw new RouteRefused("ambiguous_path");
  }
  if (UNSAFE_DECODED.test(text)) throw new RouteRefused("ambiguous_path");
  return text;
}
