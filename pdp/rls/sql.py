"""Pieces of SQL that know what they read, so that a part can become a function with parameters."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

SCHEMA: Final = "pdp_rls"
"""The private schema, and the role that owns what is in it."""
SETTING: Final = "pdp.actor"
"""The setting that names the actor for one transaction, as JSON."""


def identifier(name: str) -> str:
    """A quoted identifier. Raises ValueError for NUL."""
    if "\x00" in name:
        raise ValueError("a name holds NUL")
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text constant, if `standard_conforming_strings` is on. Raises ValueError for NUL."""
    if "\x00" in text:
        raise ValueError("a text holds NUL")
    return "'" + text.replace("'", "''") + "'"


def texts(values: Iterable[str]) -> str:
    """An array of text constants."""
    return f"ARRAY[{', '.join(map(literal, values))}]::text[]"


def dollar_quoted(body: str) -> str:
    """The body of a function, between marks that are not in it."""
    mark = "$pdp$"
    while mark in body or body.endswith(mark[:-1]):
        mark = f"{mark[:-1]}_$"
    return f"{mark}{body}{mark}"


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """The rows of one FROM."""

    alias: str
    """Quoted."""


@dataclass(frozen=True, slots=True)
class Ref:
    """Something to read that a function takes as a parameter if it is not of its own rows."""

    text: str
    type: str
    """Of the parameter."""
    scope: Scope | None = None
    """Whose row it is of; None: of no row, so that a statement reads it once."""


@dataclass(frozen=True, slots=True)
class Sql:
    """An expression."""

    parts: tuple[str | Ref, ...]

    def text(self, parameters: Mapping[Ref, str] | None = None) -> str:
        """As it is written, with parameters in place of what a function cannot see."""
        known = parameters or {}
        return "".join(
            part if isinstance(part, str) else known.get(part, part.text) for part in self.parts
        )

    def within(self, scope: Scope) -> "Sql":
        """The same, with the FROM of these rows in it: they are no parameter of a function."""
        return Sql(
            tuple(
                part.text if isinstance(part, Ref) and part.scope is scope else part
                for part in self.parts
            )
        )

    def refs(self) -> list[Ref]:
        """What it reads, once each, in order."""
        return list(dict.fromkeys(part for part in self.parts if isinstance(part, Ref)))


def sql(*parts: "str | Ref | Sql") -> Sql:
    """An expression of several parts."""
    flat: list[str | Ref] = []
    for part in parts:
        if isinstance(part, Sql):
            flat += part.parts
        else:
            flat.append(part)
    return Sql(tuple(flat))


def joined(separator: str, parts: Iterable[Sql]) -> Sql:
    """Expressions with a separator between them."""
    found: list[str | Sql] = []
    for part in parts:
        found += [separator, part] if found else [part]
    return sql(*found)


@dataclass(slots=True)
class Functions:
    """Functions that subqueries become. They belong to the role that may read all rows: in a
    policy, a subquery would see only the rows that the actor may."""

    made: dict[str, str] = field(default_factory=dict)
    """Definition by name; equal ones are one."""

    def exists(self, table: str, own: Scope, condition: Sql) -> Sql:
        """Whether a row of a table meets a condition.

        Args:
            table: qualified and quoted.
            own: the rows of the table.
            condition: may read other rows, which become parameters.
        """
        outer = [ref for ref in condition.refs() if ref.scope is not own]
        parameters = {ref: f"${number}" for number, ref in enumerate(outer, 1)}
        types = ", ".join(ref.type for ref in outer)
        body = (
            f"BEGIN RETURN EXISTS (SELECT 1 FROM {table} AS {own.alias}"
            f" WHERE {condition.text(parameters)}); END"
        )
        digest = hashlib.sha256(f"{types}\n{body}".encode()).hexdigest()
        name = f"{SCHEMA}.exists_{digest[:24]}"
        self.made[name] = (
            f"CREATE FUNCTION {name}({types}) RETURNS boolean\n"
            "LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER\n"
            f"SET search_path = pg_catalog, pg_temp\nAS {dollar_quoted(body)};"
        )
        arguments = joined(", ", (Sql((ref,)) for ref in outer))
        return sql(f"{name}(", arguments, ")")
