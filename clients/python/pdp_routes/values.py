"""What goes into a route map and what comes out: frozen values and two errors."""

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

_SHOWN_MAX = 300


class Public(enum.Enum):
    """What needs nothing: everybody passes, without a token and without an actor."""

    PUBLIC = "public"

    def __bool__(self) -> bool:
        raise TypeError("compare with PUBLIC; it has no truth value")


PUBLIC = Public.PUBLIC


@dataclass(frozen=True, slots=True)
class Needs:
    """A permission that a request needs."""

    permission: str
    """`resource-type:action`, e.g. `course:view`."""
    resource: str | None = None
    """`type/{variable}`: the variable of the path that is the id of the resource."""


Requirement = Needs | Public


class Asked(NamedTuple):
    """What the PDP is to be asked about one request."""

    permission: str
    resource_type: str | None
    resource_id: str | None
    """Percent-decoded once. Given where `resource_type` is."""


class Problem(NamedTuple):
    """What is wrong with one route, or with two that do not go together."""

    routes: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{' and '.join(repr(route[:_SHOWN_MAX]) for route in self.routes)}: {self.text}"


class RouteMapInvalid(ValueError):
    """A map that cannot be used. Says what is wrong with which routes."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


class RouteRefused(Exception):
    """A request that must not go on: 403."""

    def __init__(self, reason: Literal["no_route", "ambiguous_path"]) -> None:
        super().__init__(reason)
        self.reason: Literal["no_route", "ambiguous_path"] = reason
        """`no_route`: no route names it; `ambiguous_path`: it could be read otherwise."""
