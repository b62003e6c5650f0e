"""A whole map: made once, asked for every request."""

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
        """Makes a map from routes and what each needs; a text is a permission, or `public`.

        Raises RouteMapInvalid: a route is not well-formed, or two could take the same path and
        neither is the more specific. Its problems are 100 at most.
        """
        self._count = len(routes)
        self._root = Node()
        problems = tuple(islice(self._problems(routes), _PROBLEMS_MAX))
        if problems:
            raise RouteMapInvalid(problems)

    def __repr__(self) -> str:
        return f"<Routes: {self._count}>"

    def match(self, method: str, path: str) -> Asked | Public:
        """What a request needs; both as they were received. The path may have a query.

        Raises RouteRefused: no route takes it (`no_route`), or the path could be read otherwise
        (`ambiguous_path`).
        """
        read = read_path(path)
        found = [
            ((route.rank, weight), route)
            for ends in self._root.could_take(read)
            for weight, named in _routes_for(method)
            for route in ends.get(named, ())
        ]
        standing = [one for one in found if one[1].takes(read)]
        if not standing:
            raise RouteRefused("no_route")
        order, route = max(standing, key=lambda one: one[0])
        asked = route.asks(read)
        # For a program that reads the path with less care, one of these stands.
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
    """Routes of which methods take a request, the greater number before the smaller."""
    if method == "HEAD":
        return (2, "HEAD"), (1, "GET"), (0, None)
    return (2, method), (0, None)
