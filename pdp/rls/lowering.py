"""From a filter over a row and its actor to SQL for PostgreSQL.

What is absent, null or of another kind is decided by `pdp_client.lowering`, as for the adapters.
Here is how one column compares, how a subquery is made, and what the actor adds: values whose kind
is known only when a statement runs (`Json`), and what grants say.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from pdp_client.lowering import ChainValue, Lowering, RowValue, Value
from pdp_client.plans import FilterUnsupported
from pdp_client.resource_maps import (
    ABSENT,
    Column,
    Many,
    NullAsValue,
    One,
    Reference,
    ResourceMap,
)
from pdp_filters import (
    Compare,
    Every,
    Field,
    Filter,
    Kind,
    Operator,
    Scalar,
    Some,
    TextTest,
)
from pdp_filters.ir import COLLECTIONS, ORDERED, PRESENT, kind_of

from pdp.rls import rules
from pdp.rls.catalog import Catalog, ColumnInfo
from pdp.rls.config import Config, NullableColumn, Relation, Table
from pdp.rls.sql import SCHEMA, Functions, Ref, Scope, Sql, identifier, joined, literal, sql, texts

_KINDS: Final = {
    "text": Kind.TEXT,
    "varchar": Kind.TEXT,
    "int2": Kind.NUMBER,
    "int4": Kind.NUMBER,
    "int8": Kind.NUMBER,
    "float8": Kind.NUMBER,
    "numeric": Kind.NUMBER,
    "bool": Kind.BOOL,
}
"""Types whose values reach a question unchanged, as for `pdp_client.sqlalchemy`."""
_INTEGERS: Final = ("int2", "int4", "int8")
_INT64: Final = range(-(2**63), 2**63)
_OPERATORS: Final = {
    Operator.EQUAL: "=",
    Operator.NOT_EQUAL: "<>",
    Operator.LESS: "<",
    Operator.LESS_OR_EQUAL: "<=",
    Operator.GREATER: ">",
    Operator.GREATER_OR_EQUAL: ">=",
}
_EQUALITIES: Final = (Operator.EQUAL, Operator.NOT_EQUAL)
_TRUE: Final = Sql(("true",))
_FALSE: Final = Sql(("false",))


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a table in some FROM."""

    table: str
    scope: Scope


@dataclass(frozen=True, slots=True)
class _Typed:
    """A column in SQL, or something that compares like one."""

    sql: Sql
    base: str
    is_bytewise: bool = True


@dataclass(frozen=True, slots=True)
class Json:
    """A value of which only the running statement knows the kind: an attribute of the actor, or an
    element of one. In SQL a jsonb; NULL: absent."""

    sql: Sql
    of_actor: bool
    """Whether it is of no row, so that it is read once for a statement."""

    def through(self, function: str, type_: str) -> Sql:
        """A function of it."""
        call = sql(f"{SCHEMA}.{function}(", self.sql, ")")
        return Sql((Ref(f"(SELECT {call.text()})", type_),)) if self.of_actor else call

    def at(self, key: str) -> "Json":
        """The value of a key; absent if this is not a map."""
        return replace(self, sql=sql("(", self.sql, f" -> {literal(key)})"))

    def value(self) -> Sql:
        """Itself."""
        return Sql((Ref(f"(SELECT {self.sql.text()})", "jsonb"),)) if self.of_actor else self.sql


def describe(config: Config, name: str, table: Table) -> ResourceMap:
    """The description of the rows of a table, as adapters have it."""
    parent: Any = None
    if table.parent is not None and table.parent.table is not None:
        above = table.parent.table
        if above not in config.tables:
            raise ValueError(f"{name}: the table of its parent, {above}, is not described")
        on = {config.tables[above].id: table.parent.column}
        parent = Relation.model_construct(table=above, on=on, one={})
    elif table.parent is not None:
        parent = Reference(str(table.parent.type), table.parent.column)
    return ResourceMap(
        name,
        table.type,
        table.id,
        table.organization,
        parent,
        _fields(table.attributes),
        table.stored,
    )


def _fields(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _described(one) for name, one in attributes.items()}


def _described(attribute: Any) -> Any:
    match attribute:
        case None:
            return ABSENT
        case NullableColumn():
            return NullAsValue(attribute.column)
        case Relation(one=fields) if fields is not None:
            return One(attribute, _fields(fields))
        case Relation(many=fields) if fields is not None:
            return Many(attribute, _fields(fields))
        case Relation():
            return Many(attribute, attribute.column)
    return attribute


class PostgreSQL:
    """Writes single conditions for `pdp_client.lowering`."""

    true = _TRUE
    false = _FALSE

    def __init__(self, config: Config, catalog: Catalog, functions: Functions) -> None:
        self._config = config
        self._catalog = catalog
        self._functions = functions
        self._depth = 0

    @contextmanager
    def scope(self) -> Iterator[Scope]:
        """The rows of a subquery, with an alias that no query around it has."""
        self._depth += 1
        yield Scope(identifier(f"pdp_{self._depth}"))
        self._depth -= 1

    def all(self, parts: list[Sql]) -> Sql:
        return parts[0] if len(parts) == 1 else sql("(", joined(" AND ", parts), ")")

    def any(self, parts: list[Sql]) -> Sql:
        return parts[0] if len(parts) == 1 else sql("(", joined("\n    OR ", parts), ")")

    def column(self, rows: Rows, column: str, *, is_identifier: bool) -> Column:
        found = self._info(rows.table, column)
        name = f"{rows.table}.{column}"
        ref = _ref(rows, column, found)
        typed = _Typed(Sql((ref,)), found.base, found.is_bytewise)
        if is_identifier and found.base in _INTEGERS:
            return Column(typed, Kind.TEXT, name, parse=_integer)
        if is_identifier and found.base == "uuid":
            return Column(typed, Kind.TEXT, name, parse=_uuid)
        kind = _KINDS.get(found.base)
        if kind is None or (is_identifier and kind is not Kind.TEXT):
            raise FilterUnsupported(f"the column {name} of type {found.type}")
        return Column(typed, kind, name)

    def _info(self, table: str, column: str) -> ColumnInfo:
        try:
            return self._catalog[table].columns[column]
        except KeyError:
            raise FilterUnsupported(f"the table {table} has no column {column}") from None

    def is_null(self, column: Column, *, wanted: bool) -> Sql:
        value = column.expression.sql
        if column.blank_is_absent:
            blank = sql(_as_text(column, Operator.EQUAL), " = ''")
            if wanted:
                return sql("(", value, " IS NULL OR ", blank, ")")
            return sql("(", value, " IS NOT NULL AND NOT ", blank, ")")
        return sql("(", value, " IS NULL)" if wanted else " IS NOT NULL)")

    def compare(self, operator: Operator, column: Column, value: Any) -> Sql:
        typed: _Typed = column.expression
        symbol = f" {_OPERATORS[operator]} "
        if column.parse is not None:
            return sql("(", typed.sql, symbol, f"{literal(str(value))}::{typed.base}", ")")
        if column.kind is Kind.NUMBER:
            if typed.base in _INTEGERS and value.is_integer() and int(value) in _INT64:
                return sql("(", typed.sql, symbol, f"{literal(str(int(value)))}::bigint)")
            number = f"{literal(repr(value))}::double precision"
            return sql("(", _as_double(typed), symbol, number, ")")
        if column.kind is Kind.BOOL:
            return sql("(", typed.sql, symbol, "true)" if value else "false)")
        return sql("(", _as_text(column, operator), symbol, literal(value), ")")

    def compare_columns(self, operator: Operator, left: Column, right: Column) -> Sql:
        sides = [left.expression.sql, right.expression.sql]
        if left.kind is Kind.TEXT:
            sides = [_as_text(one, operator) for one in (left, right)]
        elif left.kind is Kind.NUMBER and not all(
            one.expression.base in _INTEGERS for one in (left, right)
        ):
            sides = [_as_double(one.expression) for one in (left, right)]
        return sql("(", sides[0], f" {_OPERATORS[operator]} ", sides[1], ")")

    def one_of(self, column: Column, values: list[Any], *, negated: bool) -> Sql:
        operator = Operator.NOT_EQUAL if negated else Operator.EQUAL
        if column.kind is not Kind.TEXT or column.parse is not None:
            parts = [self.compare(operator, column, value) for value in values]
            return self.all(parts) if negated else self.any(parts)
        quantified = " <> ALL (" if negated else " = ANY ("
        return sql("(", _as_text(column, operator), quantified, texts(values), "))")

    def match(self, test: TextTest, column: Column, text: str, *, negated: bool) -> Sql:
        escaped = text
        for character in ("\\", "%", "_"):
            escaped = escaped.replace(character, "\\" + character)
        before = "" if test is TextTest.PREFIX else "%"
        after = "" if test is TextTest.SUFFIX else "%"
        pattern = literal(f"{before}{escaped}{after}")
        like = " NOT LIKE " if negated else " LIKE "
        return sql("(", column.expression.sql, ' COLLATE "C"', like, pattern, " ESCAPE '\\')")

    def exists(
        self, rows: Rows, relation: Relation, condition: Callable[[Rows], Sql], *, wanted: bool
    ) -> Sql:
        with self.scope() as scope:
            related = Rows(relation.table, scope)
            inner = condition(related)
        matches = [
            sql(
                *("(", _ref(related, there, self._info(relation.table, there)), " = "),
                *(_ref(rows, here, self._info(rows.table, here)), ")"),
            )
            for there, here in relation.on.items()
        ]
        inner = self.all([*matches, inner])
        schema, _, table = relation.table.partition(".")
        qualified = f"{identifier(schema)}.{identifier(table)}"
        found = self._functions.exists(qualified, scope, inner)
        return found if wanted else sql("NOT ", found)

    def not_true(self, condition: Sql) -> Sql:
        return sql("((", condition, ") IS NOT TRUE)")

    def has_no_parent(self, rows: Rows, relation: Relation) -> Sql:
        refs = (_ref(rows, here, self._info(rows.table, here)) for here in relation.on.values())
        return self.any([sql("(", ref, " IS NULL)") for ref in refs])

    def described(self, below: ResourceMap, relation: Relation) -> ResourceMap:
        return describe(self._config, relation.table, self._config.tables[relation.table])


def _ref(rows: Rows, column: str, info: ColumnInfo) -> Ref:
    return Ref(f"{rows.scope.alias}.{identifier(column)}", info.type, rows.scope)


def _as_text(column: Column, operator: Operator) -> Sql:
    # Equality is bytewise under every deterministic collation, and an index serves it.
    typed: _Typed = column.expression
    if operator in _EQUALITIES and typed.is_bytewise:
        return typed.sql
    return sql("(", typed.sql, ' COLLATE "C")')


def _as_double(typed: _Typed) -> Sql:
    return typed.sql if typed.base == "float8" else sql("(", typed.sql, ")::double precision")


def _integer(text: str) -> int | None:
    try:
        value = int(text)
    except ValueError:
        return None
    return value if str(value) == text and value in _INT64 else None


def _uuid(text: str) -> str | None:
    try:
        return text if str(UUID(text)) == text else None
    except ValueError:
        return None


# --- the actor ------------------------------------------------------------------------------------


def _once(call: str, type_: str) -> Ref:
    """What a statement reads once, however many rows it looks at."""
    return Ref(f"(SELECT {SCHEMA}.{call})", type_)


_NOW: Final = Column(
    _Typed(Sql((_once("clock()", "double precision"),)), "float8"), Kind.NUMBER, ""
)
_ATTRIBUTES: Final = Json(Sql((f"{SCHEMA}.actor_attributes()",)), of_actor=True)
_AS: Final = {
    Kind.TEXT: ("text_of", "text", "text"),
    Kind.NUMBER: ("number_of", "double precision", "float8"),
    Kind.BOOL: ("boolean_of", "boolean", "bool"),
}
_ARRAYS: Final = {Kind.TEXT: ("texts_in", "text[]"), Kind.NUMBER: ("numbers_in", "float8[]")}
_ID_ARRAYS: Final = {"uuid": "uuids_of", **dict.fromkeys(_INTEGERS, "integers_of")}


class ActorLowering(Lowering[Sql, Rows]):
    """Lowers filters that read the actor and their grants."""

    _target: PostgreSQL

    def condition(self, node: Filter, levels: tuple[Value, ...]) -> Sql:  # noqa: PLR0911
        match node:
            case rules.HoldsEverywhere(roles):
                return Sql((_once(f"holds_everywhere({texts(roles)})", "boolean"),))
            case rules.HoldsWidely(roles, negated):
                holds = _once(f"holds_widely({texts(roles)})", "boolean")
                return sql("NOT ", holds) if negated else Sql((holds,))
            case rules.HoldsNothingElsewhere(roles):
                elsewhere = _once(f"elsewhere({texts(roles)})", "text[]")
                return sql("(cardinality(", elsewhere, ") = 0)")
            case rules.InActive():
                active = _once("actor_organization()", "text")
                return self._organization_is(levels[-1], " = ", active)
            case rules.InActiveWhereHeld(roles):
                held = _once(f"organization_of({texts(roles)})", "text")
                return self._organization_is(levels[-1], " = ", held)
            case rules.NotElsewhere(roles):
                elsewhere = _once(f"elsewhere({texts(roles)})", "text[]")
                return self._organization_is(levels[-1], " <> ALL ", elsewhere)
            case rules.GrantedToUser(roles):
                return self._granted(levels[-1], "granted_to_user", roles, negated=False)
            case rules.GrantedToRole(roles):
                return self._granted(levels[-1], "granted_to_role", roles, negated=False)
            case rules.NotGranted(roles):
                return self._all(
                    [
                        self._granted(levels[-1], by, roles, negated=True)
                        for by in ("granted_to_user", "granted_to_role")
                    ]
                )
            case Some(Field() as over, Compare(Operator.EQUAL, element, Field() as other)) | Every(
                Field() as over, Compare(Operator.NOT_EQUAL, element, Field() as other)
            ) if element == Field((), len(levels)) and over.path[:1] == ("actor",):
                found = self._in_array(over, other, levels, some=isinstance(node, Some))
                if found is not None:
                    return found
        return super().condition(node, levels)

    def _organization_is(self, level: ChainValue, operator: str, other: Ref) -> Sql:
        column = level.organization
        if column is None:
            return _FALSE
        if column.parse is not None:
            raise FilterUnsupported(f"{column.name} is not stored as text")
        return sql("(", _as_text(column, Operator.EQUAL), operator, *_array_or_value(other), ")")

    def _granted(self, level: ChainValue, by: str, roles: rules.Roles, *, negated: bool) -> Sql:
        typed: _Typed = level.id.expression
        ids = f"{by}({texts(roles)}, {literal(level.type)})"
        type_ = "text[]"
        if level.id.parse is not None:
            ids = f"{_ID_ARRAYS[typed.base]}({SCHEMA}.{ids})"
            type_ = "uuid[]" if typed.base == "uuid" else "bigint[]"
        value = _as_text(level.id, Operator.EQUAL)
        operator = " <> ALL " if negated else " = ANY "
        return sql("(", value, operator, *_array_or_value(_once(ids, type_)), ")")

    def _in_array(
        self, over: Field, other: Field, levels: tuple[Value, ...], *, some: bool
    ) -> Sql | None:
        """`row.field in actor.list`, as one comparison with an array that is made once."""
        items = self._json(over)
        reached: list[Column | None] = []

        def note(value: Value) -> Sql:
            reached.append(value if isinstance(value, Column) else None)
            return _TRUE

        if other.level >= len(levels):
            return None
        self._field(other, levels, note)
        [column] = reached if len(reached) == 1 else [None]
        if (
            column is None
            or column.kind not in _ARRAYS
            or column.null is Kind.NULL
            or column.parse is not None
        ):
            return None
        function, type_ = _ARRAYS[column.kind]
        array = items.through(function, type_)

        def compared(value: Value) -> Sql:
            typed: _Typed = value.expression
            is_text = value.kind is Kind.TEXT
            left = _as_text(value, Operator.EQUAL) if is_text else _as_double(typed)
            there = self._target.is_null(value, wanted=False)
            operator = " = ANY " if some else " <> ALL "
            return self._all([there, sql("(", left, operator, "((", array, f")::{type_}))")])

        found = self._field(other, levels, compared)
        if some:
            return found
        is_empty = sql("(", items.through("is_empty", "boolean"), ")")
        is_collection = self._kind_is(items, COLLECTIONS)
        return self._all([is_collection, self._any([is_empty, found])])

    def _json(self, field: Field) -> Json:
        found = _ATTRIBUTES
        for key in field.path[2:]:
            found = found.at(key)
        return found

    # --- values -----------------------------------------------------------------------------------

    def _at(
        self,
        value: Value,
        path: tuple[str, ...],
        then: Callable[[Value], Sql],
        *,
        if_absent: bool,
    ) -> Sql:
        match value:
            case RowValue() if path == ("now",):
                return then(_NOW)
            case RowValue() if path[:2] == ("actor", "attributes"):
                return then(self._json(Field(path)))
            case RowValue() if path[:1] == ("actor",):
                text = Sql((_once(f"actor_text({literal(path[1])})", "text"),))
                # Never NULL for an actor that has rows at all.
                column = Column(_Typed(text, "text"), Kind.TEXT, ".".join(path))
                return self._at(column, path[2:], then, if_absent=if_absent)
            case Json():
                for key in path:
                    value = value.at(key)
                return then(value)
        return super()._at(value, path, then, if_absent=if_absent)

    def _kind_is(self, value: Value, kinds: frozenset[Kind]) -> Sql:
        if not isinstance(value, Json):
            return super()._kind_is(value, kinds)
        if kinds == PRESENT:
            return sql("(", value.value(), " IS NOT NULL)")
        names = [_JSON_KINDS[kind] for kind in Kind if kind in kinds]
        return sql("(", value.through("kind_of", "text"), f" = ANY ({texts(names)}))")

    def _compare(self, operator: Operator, value: Value, constant: Scalar) -> Sql:
        if not isinstance(value, Json):
            return super()._compare(operator, value, constant)
        if operator is Operator.NOT_EQUAL:
            equal = self._compare(Operator.EQUAL, value, constant)
            return self._all([self._kind_is(value, PRESENT), self._target.not_true(equal)])
        kind = kind_of(constant)
        if kind is Kind.NULL:
            is_equal = operator is Operator.EQUAL
            return self._kind_is(value, frozenset((Kind.NULL,))) if is_equal else _FALSE
        return self._target.compare(operator, _as_kind(value, kind), constant)

    def _one_of(self, value: Value, values: tuple[Scalar, ...], *, negated: bool) -> Sql:
        if not isinstance(value, Json):
            return super()._one_of(value, values, negated=negated)
        found = self._any([self._compare(Operator.EQUAL, value, one) for one in values])
        if not negated:
            return found
        return self._all([self._kind_is(value, PRESENT), self._target.not_true(found)])

    def _match(self, test: TextTest, value: Value, text: str, *, negated: bool) -> Sql:
        if isinstance(value, Json):
            value = _as_kind(value, Kind.TEXT)
        return super()._match(test, value, text, negated=negated)

    def _compare_two(self, operator: Operator, left: Value, right: Value) -> Sql:
        if not isinstance(left, Json) and not isinstance(right, Json):
            return super()._compare_two(operator, left, right)
        if operator is Operator.NOT_EQUAL:
            present = [self._is_present(one) for one in (left, right)]
            equal = self._compare_two(Operator.EQUAL, left, right)
            return self._all([*present, self._target.not_true(equal)])
        if isinstance(left, Json) and isinstance(right, Json):
            if operator is Operator.EQUAL:
                return sql("(", left.value(), " = ", right.value(), ")")
            return self._any(
                [
                    super(ActorLowering, self)._compare_two(
                        operator, _as_kind(left, kind), _as_kind(right, kind)
                    )
                    for kind in ORDERED
                ]
            )
        column, json = (right, left) if isinstance(left, Json) else (left, right)
        if not isinstance(column, Column):
            if operator is Operator.EQUAL:
                raise FilterUnsupported(f"{operator.value} of {column} with a value of the actor")
            return _FALSE
        typed = _as_kind(json, column.kind)
        sides = (typed, column) if isinstance(left, Json) else (column, typed)
        parts = [super()._compare_two(operator, *sides)]
        if operator is Operator.EQUAL and column.null is Kind.NULL:
            is_null = self._target.is_null(column, wanted=True)
            parts.append(self._all([is_null, self._kind_is(json, frozenset((Kind.NULL,)))]))
        return self._any(parts)

    def _is_present(self, value: Value) -> Sql:
        return self._kind_is(value, PRESENT)

    def _elements(
        self, value: Value, over: Field, body: Filter, levels: tuple[Value, ...], *, some: bool
    ) -> Sql:
        if not isinstance(value, Json):
            return super()._elements(value, over, body, levels, some=some)
        with self._target.scope() as scope:
            element = Json(Sql((Ref(f"{scope.alias}.value", "jsonb", scope),)), of_actor=False)
            inner = self.condition(body, (*levels, element))
        wanted = inner if some else self._target.not_true(inner)
        rows = sql(f"{SCHEMA}.elements_of(", value.value(), f") AS {scope.alias}(value)")
        found = sql("EXISTS (SELECT 1 FROM ", rows, " WHERE ", wanted, ")")
        if some:
            return found
        return self._all([self._kind_is(value, COLLECTIONS), sql("NOT ", found)])


_JSON_KINDS: Final = {
    Kind.ABSENT: "absent",
    Kind.NULL: "null",
    Kind.BOOL: "boolean",
    Kind.NUMBER: "number",
    Kind.TEXT: "string",
    Kind.LIST: "array",
    Kind.MAP: "object",
}


def _as_kind(value: Json, kind: Kind) -> Column:
    """The value if it is of a kind; else NULL, which is absent."""
    function, type_, base = _AS[kind]
    return Column(_Typed(value.through(function, type_), base), kind, "a value of the actor")


def _array_or_value(ref: Ref) -> tuple[str | Ref, ...]:
    # Without the cast, ANY takes a subquery for rows of arrays.
    return ("((", ref, f")::{ref.type})") if ref.type.endswith("[]") else (ref,)


def lower_rules(node: Filter, target: PostgreSQL, config: Config, name: str, scope: Scope) -> Sql:
    """A filter as a condition on the rows of a table.

    Raises:
        FilterUnsupported: a column or relation has no exact comparison, or is not described.
    """
    described = describe(config, name, config.tables[name])
    rows = Rows(name, scope)
    return ActorLowering(target).condition(node, (RowValue(rows, described),))
