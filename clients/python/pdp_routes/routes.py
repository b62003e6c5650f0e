"""A route map: made once, matched for every request."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final

from pdp_routes.paths import read_path
from pdp_routes.tree import Node, Route
from pdp_routes.values import Asked, Problem, Public, Requirement, RouteMapInvalid, RouteRefused

ROUTES_MAX: Final = 10_000
_PROBLEMS_MAX: Final = 100


class Routes:
    """A route map. Immutable, and safe to use from any thread."""

    __slots__ = ("_count", "_root")

    def __init__(self, routes: Mapping[str, Requirement | str]) -> None:
        """Makes a map from routes and their requirements; a text is a permission, or `public`.

        Raises RouteMapInvalid: a route is malformed, or two routes could match the same path and
        neither is more specific. It has at most 100 problems.
        """
        self._count = len(routes)
        self._root = Node()
        problems = tuple(islice(self._problems(routes), _PROBLEMS_MAX))
        if problems:
            raise RouteMapInvalid(problems)

    def __repr__(self) -> str:
        return f"<Routes: {self._count}>"

    def match(self, method: str, path: str) -> Asked | Public:
        """The requirement of a request, by its method and path as they were received. The path may
        have a query.

        Raises RouteRefused: no route matches it (`no_route`), or the path is ambiguous
        (`ambiguous_path`).
        """
        read = read_path(path)
        found = [
            ((route.rank, weight), route)
            for ends in self._root.could_take(read)
            for weight, named in _routes_for(method)
            for route in ends.get(named, ())
        ]
        matching = [(order, route) for order, route in found if route.takes(read)]
        if not matching:
            raise RouteRefused("no_route")
        order, route = max(matching, key=lambda match: match[0])
        asked = route.asks(read)
        # A program that reads the path less carefully might apply another route.
        if any(other >= order and could.asks(read) != asked for other, could in found):
            raise RouteRefused("ambiguous_path")
        return asked

    def _problems(self, routes: Mapping[str, Requirement | str]) -> Iterator[Problem]:
        for text in islice(routes, ROUTES_MAX, ROUTES_MAX + 1):
            yield Problem((text,), f"is one too many: a map has at most {ROUTES_MAX} routes")
            return
        for text, value in routes.items():
            try:
                route = Route.of(text, value)
            except ValueError as error:
                yield Problem((text,), str(error))
            else:
                yield from self._root.add(route)
        yield from self._root.conflicts()


def _routes_for(method: str) -> tuple[tuple[int, str | None], ...]:
    """The route methods that match a request, each with its precedence, highest first."""
    if method == "HEAD":
        return (2, "HEAD"), (1, "GET"), (0, None)
    return (2, method), (0, None)
