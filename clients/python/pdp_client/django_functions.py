"""Functions of Django that compare exactly on PostgreSQL and SQLite, and exist nowhere else."""

from typing import Any, Final

from django.db import NotSupportedError, models
from django.db.models import Func
from pdp_filters import TextTest

from pdp_client.stored_values import double_of_decimal


class Comparison(Func):  # type: ignore[misc]  # Django has no types
    """Two operands with an operator between them."""

    template = "(%(expressions)s)"
    output_field = models.BooleanField()


class Not(Func):  # type: ignore[misc]
    """A negation."""

    template = "(NOT %(expressions)s)"
    output_field = models.BooleanField()


class _Exact(Func):  # type: ignore[misc]
    """A function that exists on PostgreSQL and SQLite only."""

    on_postgresql = ""
    on_sqlite = ""

    def as_sql(self, compiler: Any, connection: Any, **_: Any) -> Any:
        raise NotSupportedError(
            "filters of the policy decision point are exact on PostgreSQL and SQLite; this is"
            f" {connection.vendor}"
        )

    def as_postgresql(self, compiler: Any, connection: Any, **_: Any) -> Any:
        return self._written(self.on_postgresql, compiler)

    def as_sqlite(self, compiler: Any, connection: Any, **_: Any) -> Any:
        return self._written(self.on_sqlite, compiler)

    def _written(self, template: str, compiler: Any) -> Any:
        """Writes a template: `{0}` is the first operand. Operands with parameters occur once, in
        order."""
        sides = [compiler.compile(operand) for operand in self.get_source_expressions()]
        used = [index for index in range(len(sides)) if f"{{{index}}}" in template]
        parameters = [value for index in used for value in sides[index][1]]
        return template.format(*(sql for sql, _ in sides)), tuple(parameters)


# SQLite compares any two numbers by their values.
class CastToDouble(_Exact):
    """A double, an integer or a parameter as a double."""

    output_field = models.FloatField()
    on_postgresql = "CAST({0} AS DOUBLE PRECISION)"
    on_sqlite = "{0}"


class DecimalToDouble(CastToDouble):
    """A decimal as a double; NULL if no double holds it."""

    on_postgresql = f"({double_of_decimal('{0}')})"


class Equality(_Exact):
    """A text that compares for equality by its bytes, in a column without its own collation."""

    output_field = models.TextField()
    on_postgresql = "{0}"
    on_sqlite = "({0} COLLATE BINARY)"


class Bytes(_Exact):
    """A text that compares by its bytes."""

    output_field = models.TextField()
    on_postgresql = '({0} COLLATE "C")'
    on_sqlite = "({0} COLLATE BINARY)"


class _Match(_Exact):
    """A search in a text. Operands: the text, the pattern of LIKE, and twice the text to find."""

    output_field = models.BooleanField()
    on_postgresql = "({0} COLLATE \"C\" LIKE {1} ESCAPE '\\')"


# On SQLite, LIKE ignores the case of ASCII letters.
class _Prefix(_Match):
    on_sqlite = "(substr({0}, 1, length({2})) = {3} COLLATE BINARY)"


class _Suffix(_Match):
    on_sqlite = "(substr({0}, -length({2})) = {3} COLLATE BINARY)"


class _Contains(_Match):
    on_sqlite = "(instr({0}, {2}) > 0)"


MATCHES: Final = {
    TextTest.PREFIX: _Prefix,
    TextTest.SUFFIX: _Suffix,
    TextTest.CONTAINS: _Contains,
}
