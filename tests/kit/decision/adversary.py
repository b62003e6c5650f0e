"""Expensive conditions and values, the same ones for the same seed."""

import random
from collections.abc import Iterator
from typing import Any

from pdp.decision import ConditionInvalid, compile_condition
from pdp.decision.cost import estimate_of, measured
from pdp.decision.fast_path import Values
from tests.kit.decision.builders import NOW

ATTRIBUTES_MAX = 60_000
_TEXTS = (
    "context.t",
    "context.u",
    "resource.attributes.t",
    "resource.attributes.m.a",
    "resource.attributes.m['b']",
    "actor.id",
    "'aaaa'",
    "string(context.n)",
    "context.l[0]",
)
_LISTS = (
    "context.l",
    "context.l2",
    "resource.attributes.l",
    "resource.attributes.m",
    "resource.attributes",
    "context.ll",
    "actor.organization_permissions",
    "['a', 'b']",
    "context.l.map(q, q)",
    "context.l2.filter(q, q != 'b')",
)
_RANDOM = "".join(random.Random(0).choices("ab", k=2 * ATTRIBUTES_MAX))
_PATTERNS = ("a", "^[a-z]+$", "(a|b)*a(a|b){15}c", "[ab]*a[ab]{100}c", ".*x.*y", r"\\pL+9")


def conditions(chance: random.Random, number: int) -> Iterator[str]:
    """Conditions that are accepted."""
    while number:
        source = _predicate(chance, 3, [])
        try:
            compile_condition(source)
        except ConditionInvalid:
            continue
        number -= 1
        yield source


def _predicate(chance: random.Random, depth: int, elements: list[str]) -> str:
    def text() -> str:
        return chance.choice(elements if elements and chance.random() < 0.6 else _TEXTS)

    if depth and chance.random() < 0.4:
        element = "xyz"[len(elements)]
        macro = chance.choice(("exists", "all", "exists_one"))
        inner = _predicate(chance, depth - 1, [*elements, element])
        return f"{chance.choice(_LISTS)}.{macro}({element}, {inner})"
    one, other, many = text(), text(), chance.choice(_LISTS)
    return chance.choice(
        (
            f"{one}.contains({other})",
            f"{one}.contains({other})",
            f"{one} == {other}",
            f"{many} == {other}",
            f"{many} == {chance.choice(_LISTS)}",
            f"{one} in {many}",
            f"size({one}) == 3",
            f"{one}.startsWith({other})",
            f"{one} < {other}",
            f"int({one}) == 1",
            f"double({one}) > 1.0",
            f"timestamp({one}) < now",
            f"size(bytes({one})) == 5",
            f"now.getHours('Europe/Berlin') == 77 || {one} == 'x'",
            f"context[{one}] == 1",
            f"resource.attributes.m[{one}] == 'z' && {one} != {other}",
            f"({one} == 'a' ? {other} : {one}).endsWith('b')",
            f"{one}.matches('{chance.choice(_PATTERNS)}')",
        )
    )


def questions(chance: random.Random, number: int, size: int = 0) -> Iterator[Values]:
    """Values within the limits of attributes; of this size if one is given."""
    for _ in range(number):
        context = {
            "t": _text(chance, size or chance.choice((5, 200, 5_000, 30_000))),
            "u": _text(chance, chance.choice((1, 50, 1_000, 15_000))),
            "l": _list(chance, size),
            "l2": _list(chance, size),
            "ll": [["a"] * chance.choice((1, 30)) for _ in range(chance.choice((1, 10, 30)))],
            "n": 1.5,
        }
        keys = {f"k{index}": "v" for index in range(chance.choice((0, 10, 500)))}
        attributes = {
            "t": _text(chance, size or chance.choice((5, 200, 5_000, 60_000))),
            "l": _list(chance, size),
            "m": {"a": _text(chance, 5_000), "b": _text(chance, 300), **keys},
        }
        permissions = tuple(f"org:p{index}" for index in range(chance.choice((0, 10, 200))))
        yield (
            {
                "actor.id": "user_" + "x" * chance.choice((10, 250)),
                "actor.organization_permissions": permissions,
                "now": NOW,
            },
            {"context": context, "resource.attributes": attributes},
        )


def _text(chance: random.Random, length: int) -> str:
    kind = chance.randrange(4)
    if kind == 0:
        return "a" * length
    if kind == 1:
        begin = chance.randrange(len(_RANDOM) - length)
        return _RANDOM[begin : begin + length]
    if kind == 2:
        return "é" * (length // 2)
    return "a" * (length - 1) + "b"


def _list(chance: random.Random, size: int) -> list[str]:
    items = chance.choice((1, 20, 100, 300, 900))
    length = (size or chance.choice((items, 8 * items, 60_000))) // items
    return [_text(chance, min(length, 60_000 // items)) for _ in range(items)]


def data_of(program: Any, values: Values) -> dict[str, Any]:
    """The values that the program binds."""
    data: dict[str, Any] = {}
    for place, name, keys, conversion in program.reads:
        value = values[place].get(name)
        if value is not None and keys is not None:
            data[name] = {key: value[key] for key in keys if key in value}
        elif value is not None:
            data[name] = conversion(value) if conversion else value
    return data


def estimated(program: Any, values: Values) -> float:
    """The cost that an evaluation is charged, or would be."""
    sizes, binding = {}, 0.0
    for name, value in data_of(program, values).items():
        sizes[name], cost = measured(value)
        binding += cost
    estimate = program.estimate or estimate_of(program.tree, program.tree.root)
    return float(estimate(sizes)[0]) + 2 * binding
