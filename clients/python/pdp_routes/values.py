"""The inputs and outputs of a route map: frozen values and two errors."""

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

_SHOWN_MAX = 300


class Public(enum.Enum):
    """A public route: every request passes, without a token and without an actor."""

    PUBLIC = "public"

    def __bool__(self) -> bool:
        raise TypeError("compare with PUBLIC; it has no truth value")


PUBLIC = Public.PUBLIC


@dataclass(frozen=True, slots=True)
class Needs:
    """A permission that a request needs."""

    permission: str
    """`resource-type:action`, for example `course:view`."""
    resource: str | None = None
    """`type/{variable}`: the variable of the path that has the id of the resource."""


Requirement = Needs | Public


class Asked(NamedTuple):
    """The question of a request."""

    permission: str
    resource_type: str | None
    resource_id: str | None
    """Percent-decoded once. Set if `resource_type` is."""


class Problem(NamedTuple):
    """A problem of a route, or of two conflicting routes."""

    routes: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{' and '.join(repr(route[:_SHOWN_MAX]) for route in self.routes)}: {self.text}"


class RouteMapInvalid(ValueError):
    """The map is invalid. Names the problem of each route."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


class RouteRefused(Exception):
    """The request is refused: 403."""

    def __init__(self, reason: Literal["no_route", "ambiguous_path"]) -> None:
        super().__init__(reason)
        self.reason: Literal["no_route", "ambiguous_path"] = reason
        """`no_route`: no route matches the request; `ambiguous_path`: its path has several
        readings."""
