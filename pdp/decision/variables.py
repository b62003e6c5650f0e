"""The variables of conditions: their types, and how their values are bound."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from cel_expr_python import cel  # type: ignore[import-untyped]

from pdp import limits
from pdp.decision.cost import MODEST, MODEST_BYTES, SCALAR, WORST, Size, Sizes
from pdp.decision.fast_path import Values

_TEXT: Final = cel.Type.STRING
_MAP: Final = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
OPEN: Final = frozenset(("actor.attributes", "actor.claims", "resource.attributes", "context"))
ACTOR_VARIABLES: Mapping[str, cel.Type] = {
    "actor.id": _TEXT,
    "actor.session": _TEXT,
    "actor.organization": _TEXT,
    "actor.organization_role": _TEXT,
    "actor.organization_permissions": cel.Type.List(_TEXT),
    "actor.impersonator": _TEXT,
    "actor.attributes": _MAP,
    "actor.claims": _MAP,
    "actor.claimed_permissions": cel.Type.List(_TEXT),
    "actor.first_factor_minutes": cel.Type.DOUBLE,
    "actor.second_factor_minutes": cel.Type.DOUBLE,
    "now": cel.Type.TIMESTAMP,
}
QUESTION_VARIABLES: Mapping[str, cel.Type] = {
    "resource.type": _TEXT,
    "resource.id": _TEXT,
    "resource.organization": _TEXT,
    "resource.attributes": _MAP,
    "context": _MAP,
}
PLACES: Mapping[str, int] = dict.fromkeys(ACTOR_VARIABLES, 0) | dict.fromkeys(QUESTION_VARIABLES, 1)
# From the types that values have to the types that CEL accepts.
_CONVERSIONS: Mapping[str, Callable[[Any], Any]] = {
    "actor.organization_permissions": list,
    "actor.claimed_permissions": list,
    "now": lambda seconds: datetime.fromtimestamp(seconds, UTC),
}

ENVIRONMENT: Final = cel.NewEnv(variables={**ACTOR_VARIABLES, **QUESTION_VARIABLES})


def _sizes(shape: Size, text: float) -> Sizes:
    """Sizes of the variables: `text` bytes for texts, `shape` for lists and maps."""
    variables = {**ACTOR_VARIABLES, **QUESTION_VARIABLES}
    scalars = (cel.Type.DOUBLE, cel.Type.TIMESTAMP)
    return {
        name: Size(text) if kind == _TEXT else SCALAR if kind in scalars else shape
        for name, kind in variables.items()
    }


MODEST_SIZES: Final = _sizes(MODEST, MODEST_BYTES)
WORST_SIZES: Final = tuple(_sizes(shape, limits.TOKEN_BYTES_MAX) for shape in WORST)


class Read(NamedTuple):
    """A variable that an expression reads."""

    place: int
    name: str
    keys: tuple[str, ...] | None
    """The keys of a map that are read; None: the whole value."""
    conversion: Callable[[Any], Any] | None


def reads_of(keys: Mapping[str, set[str] | None]) -> tuple[Read, ...]:
    """The reads of variables and of their literal keys (None: the whole value is used)."""
    return tuple(
        Read(
            PLACES[name],
            name,
            None if known is None else tuple(sorted(known)),
            _CONVERSIONS.get(name),
        )
        for name, known in sorted(keys.items())
        if name in PLACES
    )


def bound(reads: tuple[Read, ...], values: Values) -> dict[str, Any]:
    """The values that an expression reads, in the types that CEL accepts."""
    data: dict[str, Any] = {}
    for place, name, keys, conversion in reads:
        value = values[place].get(name)
        if value is None:
            continue
        if keys is not None:
            # Binding converts the whole value, so only the keys that are read are bound.
            data[name] = {key: value[key] for key in keys if key in value}
        else:
            data[name] = conversion(value) if conversion is not None else value
    return data


def holds_nul(data: Mapping[str, Any]) -> bool:
    """Whether a text that would be bound holds NUL. Iterative, because values may nest to any
    depth."""
    pending: list[Any] = [data]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            if "\x00" in value:
                return True
        elif isinstance(value, Mapping):
            pending += value.keys()
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return False


def unwrapped(value: Any) -> Any:
    """Removes the runtime's accessors, which wrap the elements of lists and maps."""
    if isinstance(value, Mapping):
        return {unwrapped(key): unwrapped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unwrapped(item) for item in value]
    return unwrapped(value.value()) if isinstance(value, cel.Value) else value
