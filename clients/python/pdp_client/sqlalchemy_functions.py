"""Functions of SQLAlchemy that compare exactly on PostgreSQL and SQLite, and exist nowhere else."""

from typing import Any, Final

import sqlalchemy as sa
from pdp_filters import TextTest
from sqlalchemy import types
from sqlalchemy.exc import CompileError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from pdp_client.stored_values import double_of_decimal, like_pattern

DOUBLES: Final = (types.Float, types.Double, types.FLOAT, types.DOUBLE, types.DOUBLE_PRECISION)
"""Types of columns of doubles."""


class AsDouble(FunctionElement[float]):
    """A number as a question has it; NULL if no question holds it."""

    type = types.Double()
    inherit_cache = True


class Bytes(FunctionElement[str]):
    """A text that compares by its bytes."""

    type = types.String()
    inherit_cache = True


class Equality(FunctionElement[str]):
    """A text that compares for equality by its bytes, in a column without its own collation."""

    type = types.String()
    inherit_cache = True


class _Match(FunctionElement[bool]):
    """A search in a text, byte for byte."""

    type = types.Boolean()
    inherit_cache = True
    test: TextTest

    def __init__(self, column: Any, text: str) -> None:
        pattern = sa.bindparam(None, like_pattern(self.test, text), type_=types.String())
        super().__init__(column, pattern, sa.bindparam(None, text, type_=types.String()))


class _Prefix(_Match):
    inherit_cache = True
    test = TextTest.PREFIX


class _Suffix(_Match):
    inherit_cache = True
    test = TextTest.SUFFIX


class _Contains(_Match):
    inherit_cache = True
    test = TextTest.CONTAINS


MATCHES: Final = {kind.test: kind for kind in (_Prefix, _Suffix, _Contains)}
"""The search for each test."""


@compiles(AsDouble)
@compiles(Bytes)
@compiles(Equality)
@compiles(_Match)
def _refuse(element: Any, compiler: Any, **_: Any) -> str:
    raise CompileError(
        "filters of the policy decision point are exact on PostgreSQL and SQLite; this is"
        f" {compiler.dialect.name}"
    )


def _sides(element: Any, compiler: Any, options: Any) -> list[str]:
    return [compiler.process(side, **options) for side in element.clauses]


@compiles(AsDouble, "postgresql")
def _double_on_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    [number] = _sides(element, compiler, options)
    [column] = element.clauses
    if type(column.type) in DOUBLES:
        return number
    double = f"CAST({number} AS DOUBLE PRECISION)"
    return double if isinstance(column.type, types.Integer) else double_of_decimal(number)


@compiles(AsDouble, "sqlite")
def _double_on_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    return _sides(element, compiler, options)[0]  # it compares any two numbers by their values


@compiles(Equality, "postgresql")
def _equality_on_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return _sides(element, compiler, options)[0]


@compiles(Bytes, "postgresql")
def _bytes_on_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return f'({_sides(element, compiler, options)[0]} COLLATE "C")'


@compiles(Equality, "sqlite")
@compiles(Bytes, "sqlite")
def _bytes_on_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    return f"({_sides(element, compiler, options)[0]} COLLATE BINARY)"


@compiles(_Match, "postgresql")
def _match_on_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    column, pattern, _ = element.clauses
    text = compiler.process(column, **options)
    return f"({text} COLLATE \"C\" LIKE {compiler.process(pattern, **options)} ESCAPE '\\')"


def _column_and_text(element: Any, compiler: Any, options: Any) -> tuple[str, str]:
    column, _, text = element.clauses
    return compiler.process(column, **options), compiler.process(text, **options)


# On SQLite, LIKE ignores the case of ASCII letters.


@compiles(_Prefix, "sqlite")
def _prefix_on_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    column, text = _column_and_text(element, compiler, options)
    return f"(substr({column}, 1, length({text})) = {text} COLLATE BINARY)"


@compiles(_Suffix, "sqlite")
def _suffix_on_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    column, text = _column_and_text(element, compiler, options)
    return f"(substr({column}, -length({text})) = {text} COLLATE BINARY)"


@compiles(_Contains, "sqlite")
def _contains_on_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    column, text = _column_and_text(element, compiler, options)
    return f"(instr({column}, {text}) > 0)"
