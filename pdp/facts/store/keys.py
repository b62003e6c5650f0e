"""Passes any number of two-part keys as one parameter of a query.

With one parameter for each part, every number of keys would be another statement to compile and
plan.
"""

import json
from collections.abc import Iterable

from sqlalchemy import ColumnElement, FromClause, Text, bindparam, cast, func, select
from sqlalchemy.dialects.postgresql import JSON

Key = tuple[str, str]


def key_parameter(keys: Iterable[Key]) -> str:
    """Returns the value of the parameter `keys`."""
    return json.dumps(sorted(keys))


def key_table(dialect: str) -> FromClause:
    """Returns the parameter `keys` as a table with the columns `type` and `id`."""
    parameter = bindparam("keys", type_=Text)
    columns: list[ColumnElement[str]]
    if dialect == "postgresql":
        each = func.json_array_elements(cast(parameter, JSON)).table_valued("value", name="each")
        # Otherwise a recursive query would mix the default collation with that of the tables.
        columns = [each.c.value.op("->>")(place).collate("C") for place in (0, 1)]
    else:
        each = func.json_each(parameter).table_valued("value", name="each")
        columns = [func.json_extract(each.c.value, f"$[{place}]") for place in (0, 1)]
    return select(columns[0].label("type"), columns[1].label("id")).subquery("keys")
