"""The routes of a map as a tree, and which of them do not go together."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from pdp_routes.paths import Path, fold
from pdp_routes.patterns import Pattern, parse_pattern, requirement_of, resource_of
from pdp_routes.values import PUBLIC, Asked, Needs, Problem, Public, Requirement


@dataclass(frozen=True, slots=True)
class Route:
    """One route of a map."""

    text: str
    pattern: Pattern
    needs: Requirement
    resource: tuple[str, int] | None
    """Its type, and which segment is its id."""
    rank: tuple[int, ...]
    """How specific it is; of routes that take one path the greater. By segment, 2 is a literal, 1 a
    variable, and `**` is nothing; the 0 at the end is that it ends there."""

    @classmethod
    def of(cls, text: str, value: Requirement | str) -> "Route":
        """Raises ValueError with a sentence about what is wrong with it."""
        pattern = parse_pattern(text)
        needs = requirement_of(value)
        resource = resource_of(needs, pattern) if isinstance(needs, Needs) else None
        rank = tuple(1 if segment is None else 2 for segment in pattern.segments)
        return cls(text, pattern, needs, resource, rank if pattern.rest else (*rank, 0))

    def takes(self, path: Path) -> bool:
        """Whether it takes a path that it `could_take`."""
        pattern = self.pattern
        return (pattern.rest or pattern.slash == path.slash) and all(
            literal is None or literal == segment
            for literal, segment in zip(pattern.segments, path.sent, strict=False)
        )

    def asks(self, path: Path) -> Asked | Public:
        """What a request for a path that it could take needs."""
        if isinstance(self.needs, Public):
            return PUBLIC
        if self.resource is None:
            return Asked(self.needs.permission, None, None)
        resource_type, place = self.resource
        return Asked(self.needs.permission, resource_type, path.decoded[place])

    def asks_as(self, other: "Route") -> bool:
        """Whether both ask the same for every path; their variables are at the same places."""
        if isinstance(self.needs, Public) or isinstance(other.needs, Public):
            return self.needs is other.needs
        return self.needs.permission == other.needs.permission and self.resource == other.resource


Ends = dict[str | None, list[Route]]
"""Routes that end at one place, by method. Those of one method differ in letter case or a slash."""


@dataclass(slots=True)
class Node:
    """Where routes part. Letter case does not count here, and neither does a slash at the end."""

    literals: "dict[str, Node]" = field(default_factory=dict)
    variable: "Node | None" = None
    ends: Ends = field(default_factory=dict)
    rests: Ends = field(default_factory=dict)
    """Those that go on with `**`."""

    def add(self, route: Route) -> Iterator[Problem]:
        """Puts a route into the tree of this root. Yields what is wrong with it and those that are
        at the same place."""
        node = self
        for segment in route.pattern.segments:
            if segment is not None:
                node = node.literals.setdefault(fold(segment), Node())
            elif node.variable is not None:
                node = node.variable
            else:
                node.variable = node = Node()
        ends = node.rests if route.pattern.rest else node.ends
        others = ends.setdefault(route.pattern.method, [])
        for other in others:
            same_slash = other.pattern.slash == route.pattern.slash
            if same_slash and other.pattern.segments == route.pattern.segments:
                yield Problem((other.text, route.text), "name the same paths")
            elif not route.asks_as(other):
                what = "differ only in letter case or a slash, and need different things"
                yield Problem((other.text, route.text), what)
        others.append(route)

    def could_take(self, path: Path) -> list[Ends]:
        """Where the routes end that take a path if letter case, escapes and a slash at the end do
        not count."""
        found = []
        nodes = [self]
        for segment in path.folded:
            found += [node.rests for node in nodes if node.rests]
            below = [node.literals.get(segment) for node in nodes]
            below += [node.variable for node in nodes]
            nodes = [node for node in below if node is not None]
            if not nodes:
                break
        for node in nodes:
            found += [node.ends, node.rests]
        return found

    def conflicts(self) -> Iterator[Problem]:
        """Pairs of routes that could take one path while neither is the more specific."""
        nodes = [self]
        while nodes:
            node = nodes.pop()
            nodes += _children(node)
            if node.variable is not None:
                for literal in node.literals.values():
                    yield from _crossing(literal, node.variable)


def _crossing(one: Node, other: Node) -> Iterator[Problem]:
    """Conflicts of routes below `one`, which are the more specific so far, with those below
    `other`."""
    for rest in _routes(one.rests):
        for route in _below(other):
            yield from _conflict(rest, route)
    if one.variable is not None:
        for literal in other.literals.values():
            yield from _sharing(one.variable, literal)
    for pair in _pairs(one, other):
        yield from _crossing(*pair)


def _sharing(one: Node, other: Node) -> Iterator[Problem]:
    """Conflicts of routes below `one` with those below `other`, each of which is more specific than
    the other somewhere above."""
    for route in (*_routes(one.ends), *_routes(one.rests)):
        for another in (*_routes(other.ends), *_routes(other.rests)):
            yield from _conflict(route, another)
    for rest in _routes(one.rests):
        for route in _below(other):
            yield from _conflict(rest, route)
    for rest in _routes(other.rests):
        for route in _below(one):
            yield from _conflict(route, rest)
    if one.variable is not None:
        for literal in other.literals.values():
            yield from _sharing(one.variable, literal)
    for pair in _pairs(one, other):
        yield from _sharing(*pair)


def _pairs(one: Node, other: Node) -> Iterator[tuple[Node, Node]]:
    """The children of two nodes that have segments in common, where that of `one` is not the less
    specific."""
    for segment in one.literals.keys() & other.literals.keys():
        yield one.literals[segment], other.literals[segment]
    if other.variable is not None:
        for node in _children(one):
            yield node, other.variable


def _children(node: Node) -> list[Node]:
    return [*node.literals.values(), *([] if node.variable is None else [node.variable])]


def _below(node: Node) -> Iterator[Route]:
    nodes = _children(node)
    while nodes:
        child = nodes.pop()
        nodes += _children(child)
        yield from _routes(child.ends)
        yield from _routes(child.rests)


def _routes(ends: Ends) -> Iterator[Route]:
    for routes in ends.values():
        yield from routes


def _conflict(one: Route, other: Route) -> Iterator[Problem]:
    methods = {one.pattern.method, other.pattern.method}
    # A route for GET is for HEAD too.
    if len(methods) == 1 or None in methods or methods == {"GET", "HEAD"}:
        what = "could take the same path, and neither is the more specific"
        yield Problem((one.text, other.text), what)
