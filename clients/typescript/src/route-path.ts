// A request's path, as it was received -> its segments, or a refusal. What a proxy, a framework and a file system
// make of a path differs wherever it is not plain, so what is not plain is refused instead of repaired.

import { RouteRefused } from "./errors.js";

const PATH_BYTES_MAX = 8 * 1024;
const UNSAFE = /[^!-~]|[\\;#]|\/\/|%(?![0-9A-Fa-f]{2})/;
// Separators and what ends a path for somebody; `%` would be an escape for who decodes twice, and a space at an end
// is cut off by some (CVE-2016-5007).
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are refused
const UNSAFE_DECODED = /[\x00-\x1f\x7f-\x9f/\\%;?#]|^ | $/;
// The letters beyond ASCII that are one of ASCII for a program to which letter case does not count: dotted I,
// dotless i, long s, Kelvin sign.
const FOLDED: Readonly<Record<string, string>> = { "\u0130": "i", "\u0131": "i", "\u017f": "s", "\u212a": "k" };

/** The segments of a path, three times. */
export interface Path {
  readonly sent: readonly string[];
  /** Percent-decoded once. */
  readonly decoded: readonly string[];
  /** Decoded, and without letter case. */
  readonly folded: readonly string[];
  /** Ends with a slash; `/` has no segment and does. */
  readonly slash: boolean;
}

/** A request target without its query. */
export function pathOf(target: string): string {
  const query = target.indexOf("?");
  return query < 0 ? target : target.slice(0, query);
}

/** Reads the path of a request target; the query is cut off. Throws RouteRefused. */
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

/** Without letter case: equal where a program takes two texts for the same word in ASCII. */
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
