"""The routes of a map as a tree, and which of them do not go together."""

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from itertools import chain, product
from typing import Final

from pdp_routes.paths import Path, fold
from pdp_routes.patterns import Pattern, parse_pattern, requirement_of, resource_of
from pdp_routes.values import PUBLIC, Asked, Needs, Problem, Public, Requirement

STEPS_MAX: Final = 200_000
"""Of judging a map: seconds."""


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
    methods: set[str | None] = field(default_factory=set)
    """Of all routes that end here or below."""

    def add(self, route: Route) -> Iterator[Problem]:
        """Puts a route into the tree of this root. Yields what is wrong with it and those that are
        at the same place."""
        node = self
        self.methods.add(route.pattern.method)
        for segment in route.pattern.segments:
            if segment is not None:
                node = node.literals.setdefault(fold(segment), Node())
            elif node.variable is not None:
                node = node.variable
            else:
                node.variable = node = Node()
            node.methods.add(route.pattern.method)
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
        # Two nodes that one path may lead to. What is below `one` was more specific at first; where
        # it is `crossed`, what is below `other` was so further on.
        pending: list[tuple[Node, Node, bool]] = []
        nodes = [self]
        while nodes:
            node = nodes.pop()
            nodes += _children(node)
            if node.variable is not None and node.literals:
                pending.append((_merged(node.literals.values()), node.variable, False))
        for _ in range(STEPS_MAX):
            if not pending:
                return
            one, other, crossed = pending.pop()
            if not any(_meeting(method, other.methods) for method in one.methods):
                continue
            if crossed:
                yield from _problems((one.ends, one.rests), (other.ends, other.rests))
                if other.rests:
                    yield from _problems(_below(one), (other.rests,))
            if one.rests:
                yield from _problems((one.rests,), _below(other))
            pending += (
                (one.literals[segment], other.literals[segment], crossed)
                for segment in one.literals.keys() & other.literals.keys()
            )
            others = _children(other) if crossed else list(other.literals.values())
            if one.variable is not None and others:
                pending.append((one.variable, _merged(others), True))
            ones = list(one.literals.values()) if crossed else _children(one)
            if other.variable is not None and ones:
                pending.append((_merged(ones), other.variable, crossed))
        if pending:  # No map that people write comes near; and none is to stop a server.
            route = _any(pending[-1][0]).text
            yield Problem((route,), "shares too many variables with too many other routes")


def _problems(these: Iterable[Ends], others: Iterable[Ends]) -> Iterator[Problem]:
    """Pairs of routes, which take one path, of methods that meet."""
    for ends, other_ends in product(these, list(others)):
        for method, routes in ends.items():
            meeting = [other_ends[one] for one in _meeting(method, other_ends.keys())]
            for route, other in product(routes, chain.from_iterable(meeting)):
                what = "could take the same path, and neither is the more specific"
                yield Problem((route.text, other.text), what)


def _any(node: Node) -> Route:
    while not (node.ends or node.rests):
        node = _children(node)[0]
    ((first, *_), *_) = (node.ends or node.rests).values()
    return first


def _meeting(method: str | None, others: Set[str | None]) -> Set[str | None]:
    """Which of the others may be of one request with a method. A route for GET is for HEAD too."""
    if method is None:
        return others
    return others & {method, {"GET": "HEAD", "HEAD": "GET"}.get(method), None}


def _merged(nodes: Iterable[Node]) -> Node:
    """One node for several."""
    first, *more = nodes
    if not more:
        return first
    whole = Node()
    literals: dict[str, list[Node]] = {}
    variables: list[Node] = []
    for node in (first, *more):
        _add(whole.ends, node.ends)
        _add(whole.rests, node.rests)
        whole.methods |= node.methods
        for segment, child in node.literals.items():
            literals.setdefault(segment, []).append(child)
        if node.variable is not None:
            variables.append(node.variable)
    whole.literals = {segment: _merged(some) for segment, some in literals.items()}
    whole.variable = _merged(variables) if variables else None
    return whole


def _below(node: Node) -> Iterator[Ends]:
    nodes = _children(node)
    while nodes:
        child = nodes.pop()
        nodes += _children(child)
        yield child.ends
        yield child.rests


def _children(node: Node) -> list[Node]:
    return [*node.literals.values(), *([] if node.variable is None else [node.variable])]


def _add(ends: Ends, more: Ends) -> None:
    for method, routes in more.items():
        ends.setdefault(method, []).extend(routes)
