// Plans: which resources of a type an actor may use. What is unknown here is refused: a filter without one of its
// nodes may allow more.

import { fromJsonString } from "@bufbuild/protobuf";
import type { Value } from "@bufbuild/protobuf/wkt";

import type { Field, Filter, Kind, Operator, Scalar, TextTest } from "./filters.js";
import * as pb from "./pdpapi/v1/filter_pb.js";

const FORMAT_VERSION = 1;
const OPERATORS = new Map<pb.FilterOperator, Operator>([
  [pb.FilterOperator.EQUAL, "=="],
  [pb.FilterOperator.NOT_EQUAL, "!="],
  [pb.FilterOperator.LESS, "<"],
  [pb.FilterOperator.LESS_OR_EQUAL, "<="],
  [pb.FilterOperator.GREATER, ">"],
  [pb.FilterOperator.GREATER_OR_EQUAL, ">="],
]);
const KINDS = new Map<pb.FilterKind, Kind>([
  [pb.FilterKind.ABSENT, "absent"],
  [pb.FilterKind.NULL, "null"],
  [pb.FilterKind.BOOL, "bool"],
  [pb.FilterKind.NUMBER, "number"],
  [pb.FilterKind.TEXT, "text"],
  [pb.FilterKind.LIST, "list"],
  [pb.FilterKind.MAP, "map"],
]);
const TESTS = new Map<pb.FilterTextTest, TextTest>([
  [pb.FilterTextTest.PREFIX, "startsWith"],
  [pb.FilterTextTest.SUFFIX, "endsWith"],
  [pb.FilterTextTest.CONTAINS, "contains"],
]);

/** A plan that this version does not understand in full, and so must not be used. */
export class PlanInvalid extends Error {
  override readonly name = "PlanInvalid";
}

/** A filter, or a description of rows, that a target cannot express exactly. The message names field and reason. */
export class FilterUnsupported extends Error {
  override readonly name = "FilterUnsupported";
}

/** A part of a condition that no filter expresses. */
export interface Unsupported {
  readonly ruleId: string;
  readonly operator: string;
  readonly line: number;
  readonly column: number;
}

/** Which resources of a type the actor may use a permission on. Hand it to an adapter: `where` of `pdp-client/prisma`. */
export interface Plan {
  readonly permission: string;
  readonly resourceType: string;
  readonly filter: Filter;
  /** The filter takes more than is allowed: `check` each row that it takes. Only if `allowSuperset` was set. */
  readonly checkEachRow: boolean;
  /** What the filter leaves out. */
  readonly unsupported: readonly Unsupported[];
}

/** Whether no resource is allowed, whatever it is. */
export function isNothing({ filter }: Plan): boolean {
  return filter.node === "any" && filter.parts.length === 0;
}

/** Whether each resource is allowed, whatever it is. */
export function isEverything({ filter, checkEachRow }: Plan): boolean {
  return filter.node === "all" && filter.parts.length === 0 && !checkEachRow;
}

/** Reads the JSON form of a plan, as `pdp plan` prints it. Throws PlanInvalid. */
export function planFromJSON(text: string): Plan {
  let message: pb.ResourcePlan;
  try {
    message = fromJsonString(pb.ResourcePlanSchema, text);
  } catch (error) {
    throw new PlanInvalid(String(error));
  }
  return planFromMessage(message);
}

/** Reads a plan. Throws PlanInvalid. */
export function planFromMessage(message: pb.ResourcePlan): Plan {
  if (message.version !== FORMAT_VERSION) throw new PlanInvalid(`version ${message.version} of plans is unknown`);
  const { permission, resourceType, checkEachRow } = message;
  const unsupported = message.unsupported.map(({ ruleId, operator, line, column }) =>
    Object.freeze({ ruleId, operator, line, column }),
  );
  return Object.freeze({ permission, resourceType, filter: filterOf(message), checkEachRow, unsupported });
}

function filterOf({ outcome, filter }: pb.ResourcePlan): Filter {
  if (outcome === pb.PlanOutcome.FILTER && filter !== undefined) return nodeOf(filter, 0);
  if (outcome === pb.PlanOutcome.NOTHING && filter === undefined) return { node: "any", parts: [] };
  if (outcome === pb.PlanOutcome.EVERYTHING && filter === undefined) return { node: "all", parts: [] };
  throw new PlanInvalid(`the outcome ${outcome} and the filter contradict each other`);
}

/** `depth`: how many quantifiers are around the node. */
function nodeOf({ node }: pb.FilterNode, depth: number): Filter {
  switch (node.case) {
    case "all":
    case "any":
      return { node: node.case, parts: node.value.nodes.map((part) => nodeOf(part, depth)) };
    case "compare": {
      const { operator, left, right } = node.value;
      const common = { node: node.case, operator: known(OPERATORS, operator), left: fieldOf(left, depth) };
      if (right.case === "field") return { ...common, right: { field: fieldOf(right.value, depth) } };
      if (right.case === "value") return { ...common, right: { value: scalarOf(right.value) } };
      throw new PlanInvalid("a comparison has no right side");
    }
    case "oneOf": {
      const { field, values, negated } = node.value;
      return { node: node.case, field: fieldOf(field, depth), values: values.map(scalarOf), negated };
    }
    case "kindIs": {
      const kinds = new Set(node.value.kinds.map((kind) => known(KINDS, kind)));
      return { node: node.case, field: fieldOf(node.value.field, depth), kinds };
    }
    case "match": {
      const { test, field, text, negated } = node.value;
      if (text === "") throw new PlanInvalid("a test for an empty text");
      return { node: node.case, test: known(TESTS, test), field: fieldOf(field, depth), text, negated };
    }
    case "some":
    case "every": {
      const { over, body } = node.value;
      const isChain = over.case === "chain" && over.value;
      if ((over.case !== "field" && !isChain) || body === undefined) {
        throw new PlanInvalid("a quantifier of the filter is unknown");
      }
      const range = over.case === "field" ? fieldOf(over.value, depth) : "chain";
      return { node: node.case, over: range, body: nodeOf(body, depth + 1) };
    }
    case "stored":
      return { node: node.case, types: [...node.value.types] };
    default:
      throw new PlanInvalid("a node of the filter is unknown");
  }
}

function fieldOf(message: pb.FilterField | undefined, depth: number): Field {
  if (message === undefined || message.level > depth || (message.level === 0 && message.path.length === 0)) {
    throw new PlanInvalid("a field is not within reach");
  }
  return { path: [...message.path], level: message.level };
}

function scalarOf({ kind }: Value): Scalar {
  switch (kind.case) {
    case "nullValue":
      return null;
    case "boolValue":
    case "numberValue":
    case "stringValue":
      return kind.value;
    default:
      throw new PlanInvalid("a constant of the filter is unknown");
  }
}

function known<K, V>(values: ReadonlyMap<K, V>, key: K): V {
  const value = values.get(key);
  if (value === undefined) throw new PlanInvalid(`the value ${key} is unknown`);
  return value;
}
