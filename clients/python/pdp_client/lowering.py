"""Lowers a filter to a query, for any target that has columns, NULL, and `EXISTS`.

In:  a filter, a description of the rows, and a `Target` that writes single conditions.
Out: a condition of the target that is true for exactly the rows that the filter selects.

An adapter knows how a column compares and how a subquery is made. This module reads fields and
walks lists and chains of parents, in the same way for all targets; `pdp_client.predicates` handles
absent values, null and values of other kinds.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from pdp_filters import (
    And,
    Chain,
    Compare,
    Every,
    Field,
    Filter,
    Kind,
    KindIs,
    Match,
    OneOf,
    Operator,
    Or,
    Scalar,
    Some,
    Stored,
)

from pdp_client.plans import FilterUnsupported
from pdp_client.predicates import (
    ChainValue,
    Known,
    ListValue,
    MapValue,
    Predicates,
    RowValue,
    Value,
)
from pdp_client.resource_maps import (
    Absent,
    C,
    Column,
    E,
    Many,
    NullAsValue,
    One,
    Reference,
    ResourceMap,
    Target,
)

_Below = tuple[ResourceMap, ...]
"""The descriptions of the rows below, beginning with the resource."""


def lower(plan_filter: Filter, target: Target[C, E], rows: E, described: ResourceMap) -> C:
    """The condition that selects the rows that the filter selects.

    Raises FilterUnsupported for what the target cannot do exactly.
    """
    return Lowering(target).condition(plan_filter, (RowValue(rows, described),))


class Lowering(Predicates[C, E]):
    """Lowers the filters of one plan."""

    def condition(self, node: Filter, levels: tuple[Value, ...]) -> C:  # noqa: PLR0911
        """A node as a condition. `levels`: the resource, and elements of enclosing quantifiers."""
        match node:
            case And(parts):
                needed = _without_absorbed(parts, levels[0].described)
                return self._all([self.condition(part, levels) for part in needed])
            case Or(parts):
                return self._any([self.condition(part, levels) for part in parts])
            case Compare(operator, left, right):
                return self._comparison(operator, left, right, levels)
            case OneOf(field, values, negated):
                return self._field(
                    field, levels, lambda value: self._one_of(value, values, negated=negated)
                )
            case KindIs(field, kinds):
                return self._field(
                    field,
                    levels,
                    lambda value: self._kind_is(value, kinds),
                    if_absent=Kind.ABSENT in kinds,
                )
            case Match(test, field, text, negated):
                return self._field(
                    field, levels, lambda value: self._match(test, value, text, negated=negated)
                )
            case Some(over, body) | Every(over, body):
                wanted = isinstance(node, Some)
                if isinstance(over, Chain):
                    row = levels[0]
                    return self._chain(row.rows, row.described, body, levels, (), some=wanted)
                return self._field(
                    over,
                    levels,
                    lambda value: self._elements(value, over, body, levels, some=wanted),
                )
            case Stored(types):
                return self._stored(levels[0].described, types, ())
        raise TypeError(f"{type(node).__name__} is not part of a filter")

    def _comparison(
        self, operator: Operator, left: Field, right: Field | Scalar, levels: tuple[Value, ...]
    ) -> C:
        if not isinstance(right, Field):
            return self._field(left, levels, lambda value: self._compare(operator, value, right))
        return self._field(
            left,
            levels,
            lambda first: self._field(
                right, levels, lambda second: self._compare_two(operator, first, second)
            ),
        )

    # --- fields -----------------------------------------------------------------------------------

    def _field(
        self,
        field: Field,
        levels: tuple[Value, ...],
        then: Callable[[Value], C],
        *,
        if_absent: bool = False,
    ) -> C:
        """The condition `then` on the value of a field. A condition on a column must also hold if
        the column is NULL; if the path reaches nothing, `if_absent` is the result."""
        return self._at(levels[field.level], field.path, then, if_absent=if_absent)

    def _at(  # noqa: PLR0911  # a kind of value each
        self,
        value: Value,
        path: tuple[str, ...],
        then: Callable[[Value], C],
        *,
        if_absent: bool,
    ) -> C:
        target = self._target
        match value:
            case RowValue(rows, described) if path == ("id",):
                return then(self._id(rows, described))
            case RowValue(rows, described) if path == ("organization",):
                return self._organization(rows, described, then, (), if_absent=if_absent)
            case RowValue(rows, described) if path[:1] == ("attributes",):
                attributes = MapValue(rows, described.attributes, described.type)
                return self._at(attributes, path[1:], then, if_absent=if_absent)
            case ChainValue(type_, id_, organization):
                found = {"type": Known(type_), "id": id_, "organization": organization}
                inner = found.get(path[0]) if len(path) == 1 else None
                return self._known(if_absent) if inner is None else then(inner)
            case _ if not path:
                return then(value)
            case MapValue(rows, fields, name):
                key, rest = path[0], path[1:]
                name = f"{name}.{key}"
                if key not in fields:
                    raise FilterUnsupported(
                        f"the attribute {name} is not described: add it, or ABSENT if no row has it"
                    )
                match fields[key]:
                    case Absent():
                        return self._known(if_absent)
                    case One(relation, inner_fields):
                        reached = target.exists(
                            rows,
                            relation,
                            lambda related: self._at(
                                MapValue(related, inner_fields, name),
                                rest,
                                then,
                                if_absent=if_absent,
                            ),
                            wanted=True,
                        )
                        if not if_absent:
                            return reached
                        missing = target.exists(rows, relation, lambda _: target.true, wanted=False)
                        return self._any([reached, missing])
                    case Many() as many:
                        return self._at(
                            ListValue(rows, many, name), rest, then, if_absent=if_absent
                        )
                    case column:
                        found_column = self._column(rows, column, name)
                        return self._at(found_column, rest, then, if_absent=if_absent)
        return self._known(if_absent)  # neither a column nor a list has keys

    def _column(self, rows: E, column: Any, name: str) -> Column:
        null = Kind.ABSENT
        if isinstance(column, NullAsValue):
            column, null = column.column, Kind.NULL
        return replace(self._target.column(rows, column, is_identifier=False), name=name, null=null)

    def _id(self, rows: E, described: ResourceMap) -> Column:
        column = self._target.column(rows, described.id, is_identifier=True)
        return replace(column, name=f"the id of {described.type}")

    def _own_organization(self, rows: E, described: ResourceMap) -> Column | None:
        if described.organization is None:
            return None
        column = self._target.column(rows, described.organization, is_identifier=True)
        name = f"the organization of {described.type}"
        return replace(column, name=name, blank_is_absent=column.parse is None)

    def _organization(
        self,
        rows: E,
        described: ResourceMap,
        then: Callable[[Value], C],
        below: _Below,
        *,
        if_absent: bool,
    ) -> C:
        """The organization of the resource, or of its nearest ancestor that has one."""
        own = self._own_organization(rows, described)
        parent = described.parent
        if parent is None or isinstance(parent, Reference):
            return self._known(if_absent) if own is None else then(own)
        target = self._target
        above, below = self._above(described, below)
        inherited = target.exists(
            rows,
            parent,
            lambda related: self._organization(related, above, then, below, if_absent=if_absent),
            wanted=True,
        )
        if if_absent:
            inherited = self._any([target.has_no_parent(rows, parent), inherited])
        if own is None:
            return inherited
        return self._any(
            [
                self._all([target.is_null(own, wanted=False), then(own)]),
                self._all([target.is_null(own, wanted=True), inherited]),
            ]
        )

    # --- quantifiers ------------------------------------------------------------------------------

    def _elements(
        self, value: Value, over: Field, body: Filter, levels: tuple[Value, ...], *, some: bool
    ) -> C:
        if isinstance(value, MapValue):
            raise FilterUnsupported(f"a search through the keys of {over}, which is a map")
        if not isinstance(value, ListValue):
            return self._target.false
        many = value.many

        def condition(related: E) -> C:
            if isinstance(many.each, Mapping):
                element: Value = MapValue(related, many.each, value.name)
            else:
                # An element is never absent.
                element = replace(self._column(related, many.each, value.name), null=Kind.NULL)
            inner = self.condition(body, (*levels, element))
            return inner if some else self._target.not_true(inner)

        return self._target.exists(value.rows, many.relation, condition, wanted=some)

    def _chain(
        self,
        rows: E,
        described: ResourceMap,
        body: Filter,
        levels: tuple[Value, ...],
        below: _Below,
        *,
        some: bool,
    ) -> C:
        own = self._own_organization(rows, described)
        here = ChainValue(described.type, self._id(rows, described), own)
        parts = [self.condition(body, (*levels, here))]
        parent = described.parent
        if isinstance(parent, Reference):
            column = self._target.column(rows, parent.id, is_identifier=True)
            bare = ChainValue(parent.type, replace(column, name=f"the id of {parent.type}"), None)
            above = self._all(
                [
                    self._target.is_null(bare.id, wanted=False),
                    self.condition(body, (*levels, bare)),
                ]
            )
            no_parent = self._target.is_null(bare.id, wanted=True)
            parts.append(above if some else self._any([no_parent, above]))
        elif parent is not None:
            above_described, below = self._above(described, below)
            found = self._target.exists(
                rows,
                parent,
                lambda related: self._chain(
                    related, above_described, body, levels, below, some=some
                ),
                wanted=True,
            )
            if not some:
                found = self._any([self._target.has_no_parent(rows, parent), found])
            parts.append(found)
        return self._any(parts) if some else self._all(parts)

    def _stored(self, described: ResourceMap, types: tuple[str, ...], below: _Below) -> C:
        if described.type in types and not described.stored:
            raise FilterUnsupported(
                f"resources of type {described.type} must be stored in the decision point, and they"
                " are not described as such: register them with stored=True"
            )
        parent = described.parent
        if isinstance(parent, Reference):
            if parent.type in types:
                raise FilterUnsupported(
                    f"resources of type {parent.type} must be stored in the decision point, and a"
                    f" Reference to one is a parent that is not: describe the relation instead"
                )
        elif parent is not None:
            above, below = self._above(described, below)
            return self._stored(above, types, below)
        return self._target.true

    def _above(self, described: ResourceMap, below: _Below) -> tuple[ResourceMap, _Below]:
        """The description of the parents, and all descriptions below it."""
        above = self._target.described(described, described.parent)
        below = (*below, described)
        if any(above is known for known in below):
            # A search through up to 16 levels takes nested subqueries that no database plans well.
            raise FilterUnsupported(
                f"the parent of {described.type} leads to {above.type} again, so that there is no"
                " fixed number of levels"
            )
        return above, below


def _without_absorbed(parts: tuple[Filter, ...], described: ResourceMap) -> Iterable[Filter]:
    """Without what another part implies if nothing is above the resource: that it is in an
    organization, and that it is in that one or in none. A planner would count both."""
    if described.parent is not None:
        return parts
    organizations = [
        part.body
        for part in parts
        if isinstance(part, Some)
        and isinstance(part.over, Chain)
        and isinstance(part.body, Compare)
        and isinstance(part.body.right, str)
    ]
    return [
        part
        for part in parts
        if not (
            isinstance(part, Every)
            and isinstance(part.over, Chain)
            and isinstance(part.body, Or)
            and any(body in part.body.parts for body in organizations)
        )
    ]
