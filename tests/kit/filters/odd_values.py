"""Rows with values that no question holds, conditions with constants that no row holds, and what
`Check` says of them."""

import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from pdp_client.plans import Plan
from pdp_client.sqlalchemy import register
from pdp_filters import (
    Compare,
    Field,
    Filter,
    Level,
    Match,
    OneOf,
    Operator,
    Row,
    TextTest,
    evaluate,
)
from sqlalchemy import Connection, Double, Numeric, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

TYPE = "priced"
BEYOND = ("1e400", "-1e400", "NaN", "Infinity", "-Infinity")


class Base(DeclarativeBase):
    pass


class Priced(Base):
    __tablename__ = "priced"
    id: Mapped[int] = mapped_column(primary_key=True)
    price: Mapped[Decimal | None] = mapped_column(Numeric)
    score: Mapped[float | None] = mapped_column(Double)
    code: Mapped[str]


register(
    Priced,
    TYPE,
    id=Priced.id,
    attributes={"price": Priced.price, "score": Priced.score, "code": Priced.code},
)

ROWS: list[tuple[str | None, str | None, str]] = [
    *(("6", "6", "a"), ("3", "3", ""), ("-3", "6", "b"), (None, None, "ab"), ("1e-400", "6", "a")),
    *((odd, "6", "a") for odd in BEYOND),
    *(("6", odd, "a") for odd in BEYOND if "e" not in odd),
]
"""Of the columns price, score and code. Their ids count from 1."""
_ON_SQLITE = {"NaN": "'NaN'", "Infinity": "9e999", "-Infinity": "-9e999"}
"""It has no NaN, but keeps a text in a column of numbers."""


def fill(connection: Connection) -> None:
    """Makes the table with its rows."""
    Base.metadata.create_all(connection)
    for number, (*numbers, code) in enumerate(ROWS, 1):
        if connection.dialect.name == "sqlite":
            written = ["NULL" if one is None else _ON_SQLITE.get(one, one) for one in numbers]
        else:
            written = ["NULL" if one is None else f"'{one}'" for one in numbers]
        values = ", ".join((str(number), *written, f"'{code}'"))
        connection.execute(text(f"INSERT INTO priced VALUES ({values})"))
    connection.commit()


_NUMBERS = [Field(("attributes", name)) for name in ("price", "score")]
_CODE = Field(("attributes", "code"))
_ID = Field(("id",))


def _nodes() -> Iterator[Filter]:
    for operator in Operator:
        for field in _NUMBERS:
            yield from (Compare(operator, field, value) for value in (5.0, 6.0, 0.0, 0.5))
        yield from (Compare(operator, *pair) for pair in (_NUMBERS, _NUMBERS[::-1]))
    for negated in (False, True):
        yield from (OneOf(field, (5.0, 6.0), negated) for field in _NUMBERS)
        yield from (OneOf(field, ("6",), negated) for field in _NUMBERS)
        yield from (OneOf(_ID, ids, negated) for ids in (("1", "9999999999"), ("9999999999",)))
        for test in TextTest:
            yield from (Match(test, _CODE, value, negated) for value in ("", "b"))


PLANS = [Plan(f"{TYPE}:view", TYPE, node) for node in _nodes()]


def allowed(plan: Plan) -> list[int]:
    """The ids that a filter takes: `Check` refuses a question with a number beyond every double."""
    found = []
    for number, (price, score, code) in enumerate(ROWS, 1):
        numbers = {name: float(one) for name, one in (("price", price), ("score", score)) if one}
        attributes: dict[str, Any] = {**numbers, "code": code}
        is_asked = all(
            math.isfinite(value) or f"'{name}'" not in repr(plan.filter)
            for name, value in numbers.items()
        )
        row = Row((Level(TYPE, str(number), stored=False),), attributes)
        if is_asked and evaluate(plan.filter, row):
            found.append(number)
    return found
