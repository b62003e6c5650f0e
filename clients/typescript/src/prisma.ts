// Plans as Prisma's `where`, for PostgreSQL.
//
//   const courses = describe("course", { id: text("id"), organization: text("organizationId"),
//     attributes: { owner: text("ownerId"), tags: many("tags", text("name")) } });
//   const plan = await guard.plan(token, "course:view", "course");
//   await prisma.course.findMany({ where: where(plan, courses) });
//
// Every condition is true for exactly the rows that the filter takes. SQL's NULL may stand for false: there is no `NOT`
// around a condition, and `every` is written as `none` of the complement, because Prisma's own `every` passes over
// rows for which the condition is NULL.

import { complement, type Field, type Filter, type Kind, kindOf, type Operator, type Scalar } from "./filters.js";
import { FilterUnsupported, type Plan } from "./plans.js";
import type { AttributeValue, Resource } from "./values.js";

/** A `where` argument of Prisma Client. */
export type Where = { [field: string]: unknown };

const INT32_MAX = 2 ** 31 - 1;
const INT32_MIN = -(2 ** 31);
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

// --- descriptions, as an application declares them ----------------------------------------------------------------

/** Options of a column. */
export interface ColumnOptions {
  /** Whether the column may be NULL (`String?`). NULL means that the attribute is absent. */
  readonly nullable?: boolean;
  /** NULL is sent as null instead. Conditions tell the two apart: `has(resource.attributes.x)`. */
  readonly nullIsValue?: boolean;
  /** Whether the database orders the texts by their bytes: a column with the collation `C`. */
  readonly bytewise?: boolean;
}

type ColumnType = "text" | "number" | "integer" | "boolean" | "uuid";

/** A scalar field of a model. */
export interface Column extends Required<ColumnOptions> {
  readonly what: "column";
  readonly type: ColumnType;
  readonly field: string;
}

/** A relation to at most one row, sent as a map; absent without a row. */
export interface One {
  readonly what: "one";
  readonly relation: string;
  readonly fields: Attributes;
  readonly optional: boolean;
}

/** A relation to any number of rows, sent as a list: of the values of one column, or of maps. */
export interface Many {
  readonly what: "many";
  readonly relation: string;
  readonly each: Column | Attributes;
}

/** The parent, of which only the id is known here, and which the decision point does not store. */
export interface Reference {
  readonly what: "reference";
  readonly type: string;
  readonly id: Column;
}

/** The parent: a relation to rows of another description, which the decision point stores as they are. */
export interface Parent {
  readonly what: "parent";
  readonly relation: string;
  readonly described: Description;
  readonly optional: boolean;
}

/** An attribute that no row has. */
export const ABSENT = Object.freeze({ what: "absent" as const });

export interface Attributes {
  readonly [name: string]: Column | One | Many | typeof ABSENT;
}

/** How the rows of one model are resources. */
export interface Description {
  readonly type: string;
  readonly id: Column;
  /** The Clerk organization; NULL and an empty text mean that none is known. */
  readonly organization: Column | null;
  readonly parent: Parent | Reference | null;
  readonly attributes: Attributes;
  /** Whether the decision point stores each row as it is here. */
  readonly stored: boolean;
}

/** A `String`. */
export const text = column("text");
/** A `String @db.Uuid`. */
export const uuid = column("uuid");
/** A `Float`. */
export const number = column("number");
/** An `Int`. */
export const integer = column("integer");
/** A `Boolean`. */
export const boolean = column("boolean");

function column(type: ColumnType) {
  return (field: string, options: ColumnOptions = {}): Column => {
    const { nullable = false, nullIsValue = false, bytewise = false } = options;
    if (nullIsValue && !nullable) throw new TypeError(`${field}: nullIsValue needs nullable`);
    return Object.freeze({ what: "column", type, field, nullable, nullIsValue, bytewise });
  };
}

/** A relation to at most one row. `optional`: whether there may be none (`Department?`). */
export function one(relation: string, fields: Attributes, { optional = false } = {}): One {
  return Object.freeze({ what: "one", relation, fields, optional });
}

/** A relation to any number of rows. */
export function many(relation: string, each: Column | Attributes): Many {
  return Object.freeze({ what: "many", relation, each });
}

/** A parent that the decision point does not store. */
export function reference(type: string, id: Column): Reference {
  return Object.freeze({ what: "reference", type, id });
}

/** A parent that the decision point stores. `optional`: whether a row may have none. */
export function parent(relation: string, described: Description, { optional = false } = {}): Parent {
  return Object.freeze({ what: "parent", relation, described, optional });
}

/** Says how the rows of a model are resources. */
export function describe(
  type: string,
  { id, organization = null, parent: above = null, attributes = {}, stored = false }: DescribeOptions,
): Description {
  return Object.freeze({ type, id, organization, parent: above, attributes, stored });
}

/** What `describe` takes; only `id` is needed. */
export type DescribeOptions = Pick<Description, "id"> & Partial<Omit<Description, "type" | "id">>;

// --- the two uses of a description --------------------------------------------------------------------------------

/** References to the fields of a model: `prisma.course.fields`. */
export type FieldReferences = object;

/**
 * The condition for the rows of a described model. Combine it with others by `AND: [where(...), ...]`. Conditions that compare two of its fields need `fields`.
 *
 * Throws FilterUnsupported if the plan is for another type, or cannot be expressed exactly.
 */
export function where(plan: Plan, described: Description, fields: FieldReferences = {}): Where {
  if (plan.resourceType !== described.type) {
    throw new FilterUnsupported(`the plan is for ${plan.resourceType}, and the rows are of type ${described.type}`);
  }
  const row: Row = { what: "row", scope: {}, described, fields };
  const condition = conditionOf(plan.filter, [row], row.scope);
  if (condition === true) return {};
  // Not an empty OR: within an AND of the application Prisma drops it, and takes all rows.
  const held = condition || { [described.id.field]: { in: [] } };
  // Within AND no key of it is replaced when an application spreads it beside conditions of its own.
  return { AND: [held] };
}

/**
 * The resource that a row is, to ask about: `guard.check(token, permission, resourceOf(row, courses))`.
 *
 * The row must include the relations that its description names; TypeError otherwise.
 */
export function resourceOf(row: object, described: Description): Resource {
  const { organization, parent: above } = described;
  const organizationId = organization === null ? null : scalarOf(row, organization);
  const found = above === null ? null : parentOf(row, above);
  return {
    type: described.type,
    id: String(scalarOf(row, described.id)),
    attributes: attributesOf(row, described.attributes),
    ...(organizationId ? { organizationId: String(organizationId) } : {}),
    ...(found === null ? {} : { parent: found }),
  };
}

function parentOf(row: object, above: Parent | Reference): { type: string; id: string } | null {
  if (above.what === "reference") {
    const id = scalarOf(row, above.id);
    return id === null ? null : { type: above.type, id: String(id) };
  }
  const related = read(row, above.relation) as object | null;
  return related && { type: above.described.type, id: String(scalarOf(related, above.described.id)) };
}

function attributesOf(row: object, attributes: Attributes): Record<string, AttributeValue> {
  const found: [string, AttributeValue][] = [];
  for (const [name, attribute] of Object.entries(attributes)) {
    if (attribute.what === "column") {
      const value = scalarOf(row, attribute);
      if (value !== null || attribute.nullIsValue) found.push([name, value]);
    } else if (attribute.what === "one") {
      const related = read(row, attribute.relation) as object | null;
      if (related !== null) found.push([name, attributesOf(related, attribute.fields)]);
    } else if (attribute.what === "many") {
      const { each } = attribute;
      const rows = read(row, attribute.relation) as object[];
      found.push([name, rows.map((one) => (isColumn(each) ? scalarOf(one, each) : attributesOf(one, each)))]);
    }
  }
  return Object.fromEntries(found);
}

function scalarOf(row: object, { field }: Column): Scalar {
  return read(row, field) as Scalar;
}

function read(row: object, field: string): unknown {
  const value = (row as Record<string, unknown>)[field];
  if (value === undefined) throw new TypeError(`the row has no ${field}: select it, or include the relation`);
  return value;
}

function isColumn(each: Column | Attributes): each is Column {
  return (each as Column).what === "column" && typeof (each as Column).field === "string";
}

// --- from a filter to a condition ---------------------------------------------------------------------------------

/** Rows that a condition can be about: those of a model, or of a relation of it. */
type Scope = object;

interface Row {
  readonly what: "row";
  readonly scope: Scope;
  readonly described: Description;
  readonly fields: FieldReferences;
}

interface InChain {
  readonly what: "inChain";
  readonly scope: Scope;
  readonly type: string;
  readonly id: Column;
  readonly organization: Column | null;
}

interface MapValue {
  readonly what: "map";
  readonly scope: Scope;
  readonly fields: Attributes;
  readonly name: string;
}

interface ListValue {
  readonly what: "list";
  readonly many: Many;
  readonly name: string;
}

/** A column that was reached, and what its NULL means. */
interface Cell {
  readonly what: "cell";
  readonly scope: Scope;
  readonly column: Column;
  readonly name: string;
  readonly nullIs: "absent" | "null";
  readonly blankIsAbsent: boolean;
  /** To conditions an id is a text, whatever its column is. */
  readonly isIdentifier: boolean;
}

interface Known {
  readonly what: "known";
  readonly value: string;
}

type Value = MapValue | ListValue | Cell | Known;
type Level = Row | InChain | MapValue | Cell;
/** A condition, or one that is settled. */
type Condition = Where | boolean;
type Then = (value: Value) => Condition;

function conditionOf(filter: Filter, levels: readonly Level[], scope: Scope): Condition {
  switch (filter.node) {
    case "all":
      return all(filter.parts.map((part) => conditionOf(part, levels, scope)));
    case "any":
      return any(filter.parts.map((part) => conditionOf(part, levels, scope)));
    case "compare": {
      const { operator, left, right } = filter;
      if (!("field" in right)) return at(left, levels, scope, (value) => compared(operator, value, right.value));
      const other = right.field;
      return at(left, levels, scope, (first) =>
        at(other, levels, scope, (second) => comparedTwo(operator, first, second, levels[0] as Row)),
      );
    }
    case "oneOf":
      return at(filter.field, levels, scope, (value) => isOneOf(value, filter.values, filter.negated));
    case "kindIs":
      return at(filter.field, levels, scope, (value) => kindIs(value, filter.kinds), filter.kinds.has("absent"));
    case "match":
      return at(filter.field, levels, scope, (value) => matched(filter, value));
    case "some":
    case "every": {
      const some = filter.node === "some";
      if (filter.over === "chain") return chain(levels[0] as Row, filter.body, levels, scope, some);
      const over = filter.over;
      return at(over, levels, scope, (value) => elements(value, over, filter.body, levels, some));
    }
    case "stored":
      return stored((levels[0] as Row).described, filter.types);
  }
}

/** The condition `then` for the value of a field; if nothing is reached, `ifAbsent`. */
function at(field: Field, levels: readonly Level[], scope: Scope, then: Then, ifAbsent = false): Condition {
  const level = levels[field.level] as Level;
  if (level.scope !== scope) {
    // A condition on related rows cannot read the row that they belong to.
    throw new FilterUnsupported(`${shown(field)} within a condition on related rows`);
  }
  const [first, ...rest] = field.path;
  if (level.what === "cell") return first === undefined ? then(level) : ifAbsent;
  if (level.what === "map") return inMap(level, field.path, then, ifAbsent);
  if (first === "id" && rest.length === 0) {
    const { id, type } = level.what === "row" ? { id: level.described.id, type: level.described.type } : level;
    return then(identifier(scope, id, `the id of ${type}`));
  }
  if (level.what === "inChain") {
    if (rest.length > 0) return ifAbsent;
    if (first === "type") return then({ what: "known", value: level.type });
    if (first !== "organization" || level.organization === null) return ifAbsent;
    return then(organizationCell(scope, level.organization, level.type));
  }
  if (first === "organization" && rest.length === 0) {
    return organization(level.described, scope, then, ifAbsent, []);
  }
  if (first !== "attributes") return ifAbsent;
  const { attributes, type } = level.described;
  return inMap({ what: "map", scope, fields: attributes, name: type }, rest, then, ifAbsent);
}

function inMap(map: MapValue, path: readonly string[], then: Then, ifAbsent: boolean): Condition {
  const [key, ...rest] = path;
  if (key === undefined) return then(map);
  const name = `${map.name}.${key}`;
  if (!Object.hasOwn(map.fields, key)) {
    throw new FilterUnsupported(`the attribute ${name} is not described: add it, or ABSENT if no row has it`);
  }
  const attribute = map.fields[key] as Attributes[string];
  switch (attribute.what) {
    case "absent":
      return ifAbsent;
    case "one": {
      const { relation, fields, optional } = attribute;
      const reached = related(relation, optional, (scope) =>
        inMap({ what: "map", scope, fields, name }, rest, then, ifAbsent),
      );
      return ifAbsent && optional ? any([reached, { [relation]: { is: null } }]) : reached;
    }
    case "many":
      return rest.length === 0 ? then({ what: "list", many: attribute, name }) : ifAbsent;
    case "column":
      return rest.length === 0 ? then(cell(map.scope, attribute, name)) : ifAbsent;
  }
}

/** A condition on the one related row, which exists. */
function related(relation: string, optional: boolean, inner: (scope: Scope) => Condition): Condition {
  const condition = inner({});
  if (condition === true) return optional ? { [relation]: { isNot: null } } : true;
  return condition && { [relation]: { is: condition } };
}

/** Of the row, or of the nearest above it that has one. */
function organization(
  described: Description,
  scope: Scope,
  then: Then,
  ifAbsent: boolean,
  below: readonly Description[],
): Condition {
  const own = described.organization && organizationCell(scope, described.organization, described.type);
  const above = described.parent;
  if (above === null || above.what === "reference") return own === null ? ifAbsent : then(own);
  const passed = climbed(described, above, below);
  let inherited = related(above.relation, above.optional, (upper) =>
    organization(above.described, upper, then, ifAbsent, passed),
  );
  if (ifAbsent && above.optional) inherited = any([inherited, { [above.relation]: { is: null } }]);
  if (own === null) return inherited;
  return any([all([isNull(own, false), then(own)]), all([isNull(own, true), inherited])]);
}

function chain(
  level: Row,
  body: Filter,
  levels: readonly Level[],
  scope: Scope,
  some: boolean,
  below: readonly Description[] = [],
): Condition {
  const { described } = level;
  const { id, type, organization: own, parent: above } = described;
  const here: InChain = { what: "inChain", scope, type, id, organization: own };
  const parts = [conditionOf(body, [...levels, here], scope)];
  if (above?.what === "reference") {
    const bare: InChain = { what: "inChain", scope, type: above.type, id: above.id, organization: null };
    const cellOfId = identifier(scope, above.id, `the id of ${above.type}`);
    const found = all([isNull(cellOfId, false), conditionOf(body, [...levels, bare], scope)]);
    parts.push(some ? found : any([isNull(cellOfId, true), found]));
  } else if (above?.what === "parent") {
    const passed = climbed(described, above, below);
    const found = related(above.relation, above.optional, (upper) =>
      chain({ ...level, scope: upper, described: above.described }, body, levels, upper, some, passed),
    );
    parts.push(some || !above.optional ? found : any([found, { [above.relation]: { is: null } }]));
  }
  return some ? any(parts) : all(parts);
}

function climbed(described: Description, above: Parent, below: readonly Description[]): Description[] {
  const passed = [...below, described];
  if (passed.includes(above.described)) {
    throw new FilterUnsupported(`the parent of ${described.type} leads to ${above.described.type} again`);
  }
  return passed;
}

function stored(described: Description, types: readonly string[]): Condition {
  const missing = (type: string) =>
    new FilterUnsupported(
      `resources of type ${type} must be stored in the decision point: describe them as stored`,
    );
  if (types.includes(described.type) && !described.stored) throw missing(described.type);
  const above = described.parent;
  if (above?.what === "reference" && types.includes(above.type)) throw missing(above.type);
  return above?.what === "parent" ? stored(above.described, types) : true;
}

function elements(value: Value, over: Field, body: Filter, levels: readonly Level[], some: boolean): Condition {
  if (value.what === "map") throw new FilterUnsupported(`a search through the keys of ${shown(over)}, a map`);
  if (value.what !== "list") return false;
  const { relation, each } = value.many;
  const scope: Scope = {};
  const element: Level = isColumn(each)
    ? { ...cell(scope, each, value.name), nullIs: "null" } // an element cannot be absent
    : { what: "map", scope, fields: each, name: value.name };
  const condition = conditionOf(some ? body : complement(body), [...levels, element], scope);
  if (typeof condition !== "boolean") return { [relation]: { [some ? "some" : "none"]: condition } };
  if (some) return condition && { [relation]: { some: {} } };
  return condition ? { [relation]: { none: {} } } : true;
}

// --- predicates on one value --------------------------------------------------------------------------------------

function cell(scope: Scope, described: Column, name: string): Cell {
  const nullIs = described.nullIsValue ? "null" : "absent";
  return { what: "cell", scope, column: described, name, nullIs, blankIsAbsent: false, isIdentifier: false };
}

function identifier(scope: Scope, described: Column, name: string): Cell {
  if (described.type === "number" || described.type === "boolean") {
    throw new FilterUnsupported(`${name} is a ${described.type}`);
  }
  return { ...cell(scope, described, name), isIdentifier: true };
}

function organizationCell(scope: Scope, described: Column, type: string): Cell {
  const found = identifier(scope, described, `the organization of ${type}`);
  return { ...found, nullIs: "absent", blankIsAbsent: described.type === "text" };
}

function kindOfCell({ column: { type }, isIdentifier }: Cell): Kind {
  if (type === "boolean") return "bool";
  if (type === "number") return "number";
  return type === "integer" && !isIdentifier ? "number" : "text";
}

function isNull({ column: { field, nullable }, blankIsAbsent }: Cell, wanted: boolean): Condition {
  const missing: Condition = nullable ? { [field]: null } : false;
  const there: Condition = nullable ? { [field]: { not: null } } : true;
  if (!blankIsAbsent) return wanted ? missing : there;
  return wanted ? any([missing, { [field]: "" }]) : all([there, { [field]: { not: "" } }]);
}

function kindIs(value: Value, kinds: ReadonlySet<Kind>): Condition {
  if (value.what === "known") return kinds.has("text");
  if (value.what !== "cell") return kinds.has(value.what);
  return any([
    kinds.has(kindOfCell(value)) && isNull(value, false),
    kinds.has(value.nullIs) && isNull(value, true),
  ]);
}

function compared(operator: Operator, value: Value, constant: Scalar): Condition {
  if (operator === "==" || operator === "!=") return isOneOf(value, [constant], operator === "!=");
  if (value.what === "known") throw new FilterUnsupported(`${operator} of the type of a resource`);
  if (value.what !== "cell" || kindOf(constant) !== kindOfCell(value)) return false;
  if (typeof constant === "string") {
    refuseOrder(operator, value);
    // No stored text holds NUL: those up to the part before it are less, all others greater.
    const [before, ...after] = constant.split("\0");
    const ordering = after.length === 0 ? PRISMA[operator] : operator.startsWith("<") ? "lte" : "gt";
    return { [value.column.field]: { [ordering]: before } };
  }
  if (typeof constant === "boolean") {
    const wanted = [false, true].filter((found) => holds(operator, Number(found), Number(constant)));
    return isOneOf(value, wanted, false);
  }
  const { field, type } = value.column;
  if (type === "integer") return integerCompared(operator, value, constant as number);
  const bound = operator.startsWith("<") ? { gte: -SENT_MAX } : { lte: SENT_MAX };
  return { [field]: { [PRISMA[operator]]: sent(value, constant as number), ...bound } };
}

/** The largest number that Prisma sends: of a whole number it sends 16 digits, and those of the largest double are more
 * than a double holds. */
const SENT_MAX = 1.797693134862315e308;

/** No question holds NaN or an infinity, so that no comparison with one is true. */
function isHeld({ column: { field, type } }: Cell): Condition {
  return type !== "number" || { [field]: { gte: -SENT_MAX, lte: SENT_MAX } };
}

function sent({ name }: Cell, constant: number): number {
  if (Number.isInteger(constant) && Number(constant.toPrecision(16)) !== constant) {
    throw new FilterUnsupported(
      `a comparison of ${name} with ${constant}: Prisma sends 16 digits of a whole number`,
    );
  }
  return constant;
}

function refuseOrder(operator: Ordering, { name, column: { type, bytewise } }: Cell): void {
  if (type !== "text") throw new FilterUnsupported(`${operator} of ${name}, which is not stored as text`);
  if (!bytewise) {
    throw new FilterUnsupported(
      `${operator} of the text ${name}: its order depends on the collation; if that is C, describe it as bytewise`,
    );
  }
}

/** Two fields of the row itself: Prisma compares columns of one model and one type. */
function comparedTwo(operator: Operator, left: Value, right: Value, row: Row): Condition {
  const what = `${operator} of two fields: ${nameOf(left)} and ${nameOf(right)}`;
  if (left.what === "known" || right.what === "known") throw new FilterUnsupported(what);
  if (left.what !== "cell" || right.what !== "cell") {
    if (left.what === right.what) throw new FilterUnsupported(what);
    // A list or a map is there, and equals no other value.
    return operator === "!=" && all([left, right].map((side) => side.what !== "cell" || isPresent(side)));
  }
  if (left.scope !== row.scope || right.scope !== row.scope) {
    throw new FilterUnsupported(`${what}: one of them is of a related row`);
  }
  const there = [isNull(left, false), isNull(right, false), isHeld(left), isHeld(right)];
  const nulls = [left, right].map((side) => side.nullIs === "null" && isNull(side, true)) as [Condition, Condition];
  const isSameKind = kindOfCell(left) === kindOfCell(right);
  const { field } = left.column;
  if (operator === "==") {
    const equal = isSameKind && { [field]: { equals: referenceTo(left, right, row, what) } };
    return any([all(nulls), all([...there, equal])]);
  }
  if (operator === "!=") {
    const unequal = !isSameKind || { [field]: { not: { equals: referenceTo(left, right, row, what) } } };
    return any([
      all([...there, unequal]),
      all([nulls[0], isNull(right, false), isHeld(right)]),
      all([nulls[1], isNull(left, false), isHeld(left)]),
    ]);
  }
  if (!isSameKind) return false;
  if (kindOfCell(left) === "text") for (const side of [left, right]) refuseOrder(operator, side);
  if (left.column.type === "boolean") throw new FilterUnsupported(`${what}: Prisma has no order of booleans`);
  return all([...there, { [field]: { [PRISMA[operator]]: referenceTo(left, right, row, what) } }]);
}

/** A reference to the column of `right`, for a condition on the column of `left`. */
function referenceTo(left: Cell, right: Cell, row: Row, what: string): unknown {
  if (left.column.type !== right.column.type) {
    throw new FilterUnsupported(`${what}: they are stored as ${left.column.type} and ${right.column.type}`);
  }
  const found = (row.fields as Record<string, unknown>)[right.column.field];
  if (found === undefined) throw new FilterUnsupported(`${what}: pass prisma.<model>.fields to where`);
  return found;
}

function isPresent(value: Cell): Condition {
  return value.nullIs === "null" || isNull(value, false);
}

function nameOf(value: Value): string {
  return value.what === "known" ? "the type of a resource" : value.name;
}

type Ordering = Exclude<Operator, "==" | "!=">;
const PRISMA = { "<": "lt", "<=": "lte", ">": "gt", ">=": "gte" } as const;

function holds(operator: Ordering, left: number, right: number): boolean {
  if (operator === "<") return left < right;
  if (operator === "<=") return left <= right;
  return operator === ">" ? left > right : left >= right;
}

/** Prisma takes no fraction, and nothing beyond 32 bits, for an `Int`. */
function integerCompared(operator: Ordering, value: Cell, constant: number): Condition {
  const up = operator === "<" || operator === ">=";
  const bound = up ? Math.ceil(constant) : Math.floor(constant);
  if (bound > INT32_MAX || bound < INT32_MIN) return holds(operator, 0, bound) && isNull(value, false);
  return { [value.column.field]: { [PRISMA[operator]]: bound } };
}

function isOneOf(value: Value, values: readonly Scalar[], negated: boolean): Condition {
  if (value.what === "known") return values.includes(value.value) !== negated;
  if (value.what !== "cell") return negated; // a list or a map is there, and equals no constant
  const fitting = values
    .filter((constant) => kindOf(constant) === kindOfCell(value))
    .flatMap((constant) => {
      const found = storedValue(value, constant);
      return found === null ? [] : [found];
    });
  const { field } = value.column;
  const nullCounts = value.nullIs === "null" && values.includes(null) !== negated && isNull(value, true);
  const several = fitting.length > 1 && value.column.type !== "boolean"; // a boolean has no `in`
  if (!negated) {
    const equal = several ? [{ [field]: { in: fitting } }] : fitting.map((constant) => ({ [field]: constant }));
    return any([nullCounts, ...equal]);
  }
  const different = several
    ? [{ [field]: { notIn: fitting } }]
    : fitting.map((constant) => ({ [field]: { not: constant } }));
  return any([nullCounts, all([isNull(value, false), isHeld(value), ...different])]);
}

/** The constant as the column has it; null: no row has it. */
function storedValue(cell: Cell, constant: Scalar): Scalar {
  const {
    column: { type },
    blankIsAbsent,
  } = cell;
  if (typeof constant === "string" && (constant.includes("\0") || (blankIsAbsent && constant === ""))) return null;
  if (type === "uuid") return UUID.test(constant as string) ? constant : null;
  if (type === "number") return sent(cell, constant as number);
  if (type !== "integer") return constant;
  const parsed = Number(constant);
  const isWritten = typeof constant === "number" || String(parsed) === constant;
  return isWritten && Number.isInteger(parsed) && parsed >= INT32_MIN && parsed <= INT32_MAX ? parsed : null;
}

function matched({ test, text: wanted, negated }: Extract<Filter, { node: "match" }>, value: Value): Condition {
  if (value.what === "known") {
    const { value: known } = value;
    const found = {
      startsWith: known.startsWith(wanted),
      endsWith: known.endsWith(wanted),
      contains: known.includes(wanted),
    };
    return found[test] !== negated;
  }
  if (value.what !== "cell" || kindOfCell(value) !== "text") return false;
  const { type, field } = value.column;
  if (type !== "text") throw new FilterUnsupported(`${test} of ${value.name}, which is not stored as text`);
  const there = isNull(value, false);
  if (wanted.includes("\0")) return negated && there;
  // Prisma puts the text into a pattern of LIKE as it is.
  const found = { [field]: { [test]: wanted.replaceAll(/[\\%_]/g, "\\$&") } };
  return negated ? all([there, { NOT: found }]) : found;
}

// --- junctions ----------------------------------------------------------------------------------------------------

function all(parts: readonly Condition[]): Condition {
  if (parts.includes(false)) return false;
  const open = parts.filter((part) => part !== true) as Where[];
  if (open.length === 0) return true;
  return open.length === 1 ? (open[0] as Where) : { AND: open };
}

function any(parts: readonly Condition[]): Condition {
  if (parts.includes(true)) return true;
  const open = parts.filter((part) => part !== false) as Where[];
  if (open.length === 0) return false;
  return open.length === 1 ? (open[0] as Where) : { OR: open };
}

function shown({ path, level }: Field): string {
  return [level === 0 ? "resource" : `element${level}`, ...path].join(".");
}
