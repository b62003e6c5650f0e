// The neutral form of a filter, as docs/filters.md defines it: `and`, `or`, and predicates that are true or false for
// every row. There is no `not`: the complement of a node is a node.

/** A constant, as JSON knows it. */
export type Scalar = string | number | boolean | null;

/** What a field holds. Values of different kinds are never equal. */
export type Kind = "absent" | "null" | "bool" | "number" | "text" | "list" | "map";

/** All are false if a side is absent; ordering is false if the kinds differ. */
export type Operator = "==" | "!=" | "<" | "<=" | ">" | ">=";

/** Where a text must contain another one. */
export type TextTest = "startsWith" | "endsWith" | "contains";

/** A value of the resource (level 0), or of the element of the n-th quantifier around it. */
export interface Field {
  readonly path: readonly string[];
  readonly level: number;
}

/** The range of a quantifier: a list or map; or the resource and what is above it. */
export type Range = Field | "chain";

export type Filter =
  | { readonly node: "all" | "any"; readonly parts: readonly Filter[] }
  | {
      readonly node: "compare";
      readonly operator: Operator;
      readonly left: Field;
      readonly right: { readonly field: Field } | { readonly value: Scalar };
    }
  | { readonly node: "oneOf"; readonly field: Field; readonly values: readonly Scalar[]; readonly negated: boolean }
  | { readonly node: "kindIs"; readonly field: Field; readonly kinds: ReadonlySet<Kind> }
  | {
      readonly node: "match";
      readonly test: TextTest;
      readonly field: Field;
      readonly text: string;
      readonly negated: boolean;
    }
  | { readonly node: "some" | "every"; readonly over: Range; readonly body: Filter }
  | { readonly node: "stored"; readonly types: readonly string[] };

export const KINDS: readonly Kind[] = ["absent", "null", "bool", "number", "text", "list", "map"];
const COLLECTIONS: readonly Kind[] = ["list", "map"];
const ORDERED: readonly Kind[] = ["bool", "number", "text"];
const OPPOSITES: Readonly<Record<Operator, Operator>> = {
  "==": "!=",
  "!=": "==",
  "<": ">=",
  "<=": ">",
  ">": "<=",
  ">=": "<",
};

/** The kind of a constant. */
export function kindOf(value: Scalar): Kind {
  if (value === null) return "null";
  if (typeof value === "boolean") return "bool";
  return typeof value === "string" ? "text" : "number";
}

/** True exactly where the node is false. Throws TypeError for `stored`, whose complement no plan needs. */
export function complement(filter: Filter): Filter {
  switch (filter.node) {
    case "all":
      return { node: "any", parts: filter.parts.map(complement) };
    case "any":
      return { node: "all", parts: filter.parts.map(complement) };
    case "compare":
      return any(...incomparable(filter), { ...filter, operator: OPPOSITES[filter.operator] });
    case "oneOf":
      return any(kindIs(filter.field, ["absent"]), { ...filter, negated: !filter.negated });
    case "kindIs":
      return kindIs(
        filter.field,
        KINDS.filter((kind) => !filter.kinds.has(kind)),
      );
    case "match":
      return any(kindIsNot(filter.field, ["text"]), { ...filter, negated: !filter.negated });
    case "some":
      return any(...noCollection(filter.over), { ...filter, node: "every", body: complement(filter.body) });
    case "every":
      return any(...noCollection(filter.over), { ...filter, node: "some", body: complement(filter.body) });
    case "stored":
      throw new TypeError("stored has no complement");
  }
}

/** When neither a comparison nor its opposite is true. */
function incomparable({ operator, left, right }: Extract<Filter, { node: "compare" }>): Filter[] {
  if (operator === "==" || operator === "!=") {
    return [kindIs(left, ["absent"]), ...("field" in right ? [kindIs(right.field, ["absent"])] : [])];
  }
  if ("value" in right) return [kindIsNot(left, [kindOf(right.value)])];
  const { field } = right;
  return [{ node: "all", parts: ORDERED.map((kind) => any(kindIsNot(left, [kind]), kindIsNot(field, [kind]))) }];
}

function noCollection(over: Range): Filter[] {
  return over === "chain" ? [] : [kindIsNot(over, COLLECTIONS)];
}

function any(...parts: Filter[]): Filter {
  return { node: "any", parts };
}

function kindIs(field: Field, kinds: readonly Kind[]): Filter {
  return { node: "kindIs", field, kinds: new Set(kinds) };
}

function kindIsNot(field: Field, kinds: readonly Kind[]): Filter {
  return kindIs(
    field,
    KINDS.filter((kind) => !kinds.includes(kind)),
  );
}
