// Converts attributes to a google.protobuf.Struct, strictly: a value without an exact form there is refused,
// because a condition would read another value than the application wrote. Encoded here, because the stubs lose a
// key `__proto__`.

import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";

import { nameOf } from "./values.js";

const ATTRIBUTE_DEPTH_MAX = 16;
/** Struct stores numbers as IEEE doubles, which are not exact for all integers beyond this. */
const INTEGER_MAX = 2 ** 53;

// Numbers of the fields of google.protobuf.Struct, Value and ListValue.
const FIELDS = 1;
const KEY = 1;
const VALUE = 2;
const NULL = 1;
const NUMBER = 2;
const STRING = 3;
const BOOL = 4;
const STRUCT = 5;
const LIST = 6;
const VALUES = 1;

/**
 * The bytes of a Struct. Errors contain `name`, but never values.
 *
 * Throws TypeError for values without a form in JSON (undefined, functions, symbols, dates and other objects of
 * classes), and RangeError for NaN, infinities, integers beyond 2^53, text that is not Unicode, and more than 16
 * levels.
 */
export function toStruct(attributes: unknown, name: string): Uint8Array {
  const writer = new BinaryWriter();
  writeStruct(writer, attributes, name, 1);
  return writer.finish();
}

function writeStruct(writer: BinaryWriter, object: unknown, path: string, depth: number): void {
  if (!isPlainObject(object)) throw new TypeError(`${path} must be a plain object, not ${nameOf(object)}`);
  checkDepth(path, depth);
  if (Object.getOwnPropertySymbols(object).length > 0) throw new TypeError(`${path}: a key must be a string`);
  for (const key of Object.keys(object)) {
    if (!key.isWellFormed()) throw new RangeError(`a key of ${path}: not Unicode text (a lone surrogate)`);
    writer.tag(FIELDS, WireType.LengthDelimited).fork();
    writer.tag(KEY, WireType.LengthDelimited).string(key);
    writer.tag(VALUE, WireType.LengthDelimited).fork();
    writeValue(writer, object[key], `${path}.${key}`, depth);
    writer.join().join();
  }
}

function writeValue(writer: BinaryWriter, value: unknown, path: string, depth: number): void {
  switch (typeof value) {
    case "string":
      if (!value.isWellFormed()) throw new RangeError(`${path}: not Unicode text (a lone surrogate)`);
      writer.tag(STRING, WireType.LengthDelimited).string(value);
      return;
    case "boolean":
      writer.tag(BOOL, WireType.Varint).bool(value);
      return;
    case "number":
    case "bigint":
      writer.tag(NUMBER, WireType.Bit64).double(numberOf(value, path));
      return;
    case "object":
      if (value === null) {
        writer.tag(NULL, WireType.Varint).int32(0);
      } else if (Array.isArray(value)) {
        writer.tag(LIST, WireType.LengthDelimited).fork();
        writeList(writer, value, path, depth + 1);
        writer.join();
      } else {
        writer.tag(STRUCT, WireType.LengthDelimited).fork();
        writeStruct(writer, value, path, depth + 1);
        writer.join();
      }
      return;
    default:
      throw new TypeError(`${path}: ${typeof value} has no form in JSON`);
  }
}

function writeList(writer: BinaryWriter, list: readonly unknown[], path: string, depth: number): void {
  checkDepth(path, depth);
  for (let index = 0; index < list.length; index++) {
    writer.tag(VALUES, WireType.LengthDelimited).fork();
    writeValue(writer, list[index], `${path}[${index}]`, depth);
    writer.join();
  }
}

function numberOf(value: number | bigint, path: string): number {
  const number = Number(value);
  if (!Number.isFinite(number)) throw new RangeError(`${path}: a number must be finite`);
  if (Number.isInteger(number) && (value > INTEGER_MAX || value < -INTEGER_MAX)) {
    throw new RangeError(`${path}: an integer beyond 2^53 is not exact; send a string`);
  }
  return number;
}

function checkDepth(path: string, depth: number): void {
  if (depth > ATTRIBUTE_DEPTH_MAX) throw new RangeError(`${path}: deeper than ${ATTRIBUTE_DEPTH_MAX} levels`);
}

/** Whether JSON.parse could return it, also in another realm. Objects of classes mean more than their fields. */
function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}
