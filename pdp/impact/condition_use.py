"""The values that the conditions of a permission read; users and resources are grouped by them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pdp.decision import Condition
from pdp.decision.cel_ast import Kind, read

NOT_STORED: Final = (
    "actor.claims",
    "actor.claimed_permissions",
    "actor.first_factor_minutes",
    "actor.impersonator",
    "actor.organization_permissions",
    "actor.second_factor_minutes",
    "actor.session",
    "context",
)
"""Variables that no stored fact gives: they are empty or absent in each compared answer."""
_COMPARING: Final = frozenset(("_&&_", "_||_", "!_", "_==_", "_!=_", "@in", "_?_:_"))
_LEAVES: Final = (Kind.CONSTANT, Kind.VARIABLE)
_WHOLE: Final = (Kind.SELECT, Kind.LIST)

Keys = frozenset[str] | None
"""Keys that are read of a map; None: the whole value."""


@dataclass(frozen=True, slots=True)
class ConditionUse:
    """What a set of conditions reads."""

    reads: Mapping[str, Keys]
    """By variable."""
    only_compares: bool
    """Whether texts are only compared for equality, at no charge. Then two values that differ in
    nothing but a consistent renaming of ids have the same outcome, except for ids in `names`."""
    names: frozenset[str]
    """Texts and keys that the conditions contain."""

    def values(self, variable: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """The part of a map that is read."""
        if variable not in self.reads:
            return {}
        keys = self.reads[variable]
        return dict(value) if keys is None else {key: value[key] for key in keys if key in value}


def use_of(conditions: Iterable[Condition]) -> ConditionUse:
    """What these conditions read together."""
    reads: dict[str, Keys] = {}
    names: set[str] = set()
    only_compares = True
    for condition in conditions:
        opened = condition.opened()
        if opened is None:
            continue  # it always fails
        for wanted in opened.reads:
            keys = None if wanted.keys is None else frozenset(wanted.keys)
            before = reads.get(wanted.name, frozenset())
            reads[wanted.name] = None if keys is None or before is None else before | keys
        only_compares = only_compares and opened.estimate is None
        pending = [opened.tree.root]
        while pending:
            node = read(pending.pop())
            pending += node.inner
            if isinstance(node.constant, str):
                names.add(node.constant)
            if node.kind is Kind.SELECT:
                names.add(node.name)
            compares = node.kind is Kind.CALL and node.name in _COMPARING
            if not compares and node.kind not in (*_LEAVES, *_WHOLE):
                only_compares = False
    return ConditionUse(reads, only_compares, frozenset(names))
