"""From a filter over a row and its actor to SQL for PostgreSQL.

What is absent, null or of another kind is decided by `pdp_client.lowering`, as for the adapters.
Here is what the actor adds: values whose kind is known only when a statement runs (`Json`), and
what grants say.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from pdp_client.lowering import Lowering
from pdp_client.plans import FilterUnsupported
from pdp_client.predicates import ChainValue, RowValue, Value
from pdp_client.resource_maps import Column, NullAsValue
from pdp_filters import Compare, Every, Field, Filter, Kind, Operator, Scalar, Some, TextTest
from pdp_filters.ir import COLLECTIONS, ORDERED, PRESENT, kind_of

from pdp.rls import rules
from pdp.rls.config import Config
from pdp.rls.postgresql import (
    FALSE,
    INTEGERS,
    TRUE,
    PostgreSQL,
    Rows,
    Typed,
    as_double,
    as_text,
    describe,
)
from pdp.rls.sql import SCHEMA, Ref, Scope, Sql, literal, sql, texts


@dataclass(frozen=True, slots=True)
class Json:
    """A value of which only the running statement knows the kind: an attribute of the actor, a
    jsonb column, or an element of one. In SQL a jsonb; NULL: absent."""

    sql: Sql
    of_actor: bool
    """Whether it is of no row, so that it is read once for a statement."""
    name: str = "a value of the actor"
    """The name in messages."""
    is_of_row: bool = False
    """Whether it is of a jsonb column, whose numbers are decimals; those of a question are doubles,
    and those of the actor are written as such."""

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


def _once(call: str, type_: str) -> Ref:
    """What a statement reads once, however many rows it looks at."""
    return Ref(f"(SELECT {SCHEMA}.{call})", type_)


def _time(call: str) -> Column:
    once = Ref(f"(SELECT {call})", "double precision")
    return Column(Typed(Sql((once,)), "float8"), Kind.NUMBER, "now")


_TIMES: Final = {
    ("now",): _time(f"{SCHEMA}.clock()"),
    ("now", "seconds"): _time(f"floor({SCHEMA}.clock())"),
}
_OF_ACTOR: Final = {
    name: Json(Sql((f"{SCHEMA}.actor_{name}()",)), of_actor=True)
    for name in ("attributes", "organization_permissions")
}
_AS: Final = {
    Kind.TEXT: ("text_of", "text", "text"),
    Kind.NUMBER: ("number_of", "double precision", "float8"),
    Kind.BOOL: ("boolean_of", "boolean", "bool"),
}
_ARRAYS: Final = {Kind.TEXT: ("texts_in", "text[]"), Kind.NUMBER: ("numbers_in", "float8[]")}
_ID_ARRAYS: Final = {"uuid": "uuids_of", **dict.fromkeys(INTEGERS, "integers_of")}


class ActorLowering(Lowering[Sql, Rows]):
    """Lowers filters that read the actor and their grants."""

    _target: PostgreSQL

    def condition(self, node: Filter, levels: tuple[Value, ...]) -> Sql:  # noqa: PLR0911
        """A node as a condition. `levels`: the resource, and elements of enclosing quantifiers."""
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
            ) if element == Field((), len(levels)) and _is_json_of_actor(over.path):
                found = self._in_array(over, other, levels, some=isinstance(node, Some))
                if found is not None:
                    return found
        return super().condition(node, levels)

    def _organization_is(self, level: ChainValue, operator: str, other: Ref) -> Sql:
        column = level.organization
        if column is None:
            return FALSE
        if column.parse is not None:
            raise FilterUnsupported(f"{column.name} is not stored as text")
        return sql("(", as_text(column, Operator.EQUAL), operator, *_array_or_value(other), ")")

    def _granted(self, level: ChainValue, by: str, roles: rules.Roles, *, negated: bool) -> Sql:
        typed: Typed = level.id.expression
        ids = f"{by}({texts(roles)}, {literal(level.type)})"
        type_ = "text[]"
        if level.id.parse is not None:
            ids = f"{_ID_ARRAYS[typed.base]}({SCHEMA}.{ids})"
            type_ = "uuid[]" if typed.base == "uuid" else "bigint[]"
        value = as_text(level.id, Operator.EQUAL)
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
            return TRUE

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
            typed: Typed = value.expression
            is_text = value.kind is Kind.TEXT
            left = as_text(value, Operator.EQUAL) if is_text else as_double(typed)
            there = self._target.is_null(value, wanted=False)
            operator = " = ANY " if some else " <> ALL "
            held = self._held(value, Operator.EQUAL if some else Operator.NOT_EQUAL)
            compared = sql("(", left, operator, "((", array, f")::{type_}))")
            return self._all([there, *held, compared])

        found = self._field(other, levels, compared)
        if some:
            return found
        is_empty = sql("(", items.through("is_empty", "boolean"), ")")
        is_collection = self._kind_is(items, COLLECTIONS)
        return self._all([is_collection, self._any([is_empty, found])])

    def _json(self, field: Field) -> Json:
        found = _OF_ACTOR[field.path[1]]
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
            case RowValue() if path in _TIMES:
                return then(_TIMES[path])
            case RowValue() if _is_json_of_actor(path):
                return then(self._json(Field(path)))
            case RowValue() if path[:1] == ("actor",):
                text = Sql((_once(f"actor_text({literal(path[1])})", "text"),))
                # Never NULL for an actor that has rows at all.
                column = Column(Typed(text, "text"), Kind.TEXT, ".".join(path))
                return self._at(column, path[2:], then, if_absent=if_absent)
            case Json():
                for key in path:
                    value = value.at(key)
                return then(value)
        return super()._at(value, path, then, if_absent=if_absent)

    def _column(self, rows: Rows, column: Any, name: str) -> Any:
        found = None if isinstance(column, NullAsValue) else self._target.as_jsonb(rows, column)
        if found is None:
            return super()._column(rows, column, name)
        return Json(found, of_actor=False, name=name, is_of_row=True)

    def _kind_is(self, value: Value, kinds: frozenset[Kind]) -> Sql:
        if not isinstance(value, Json):
            return super()._kind_is(value, kinds)
        if kinds == PRESENT and not value.is_of_row:
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
            return self._kind_is(value, frozenset((Kind.NULL,))) if is_equal else FALSE
        return super()._compare(operator, _as_kind(value, kind), constant)

    def _one_of(self, value: Value, values: tuple[Scalar, ...], *, negated: bool) -> Sql:
        if not isinstance(value, Json):
            return super()._one_of(value, values, negated=negated)
        found = self._any([self._compare(Operator.EQUAL, value, item) for item in values])
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
            present = [self._is_present(side) for side in (left, right)]
            equal = self._compare_two(Operator.EQUAL, left, right)
            return self._all([*present, self._target.not_true(equal)])
        if isinstance(left, Json) and isinstance(right, Json):
            if operator is Operator.EQUAL:
                if left.is_of_row or right.is_of_row:
                    raise FilterUnsupported(f"{operator.value} of {left.name} with {right.name}")
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
                raise FilterUnsupported(f"{operator.value} of {column.name} with {json.name}")
            return FALSE
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
            itself = Sql((Ref(f"{scope.alias}.value", "jsonb", scope),))
            element = replace(value, sql=itself, of_actor=False)
            inner = self.condition(body, (*levels, element))
        wanted = inner if some else self._target.not_true(inner)
        rows = sql(f"{SCHEMA}.elements_of(", value.value(), f") AS {scope.alias}(value)")
        found = sql("EXISTS (SELECT 1 FROM ", rows, " WHERE ", wanted, ")").within(scope)
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
    return Column(Typed(value.through(function, type_), base), kind, value.name)


def _is_json_of_actor(path: tuple[str, ...]) -> bool:
    return path[:1] == ("actor",) and path[1] in _OF_ACTOR


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
