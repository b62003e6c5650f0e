"""The routes of a map as a tree, and the conflicts between them."""

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from itertools import chain, product
from typing import Final

from pdp_routes.paths import Path, fold
from pdp_routes.patterns import Pattern, parse_pattern, requirement_of, resource_of
from pdp_routes.values import PUBLIC, Asked, Needs, Problem, Public, Requirement

STEPS_MAX: Final = 200_000
"""Bound of the search for conflicts in a map; it takes seconds."""


@dataclass(frozen=True, slots=True)
class Route:
    """A route of a map."""

    text: str
    pattern: Pattern
    needs: Requirement
    resource: tuple[str, int] | None
    """The type of the resource, and the index of the segment with its id."""
    rank: tuple[int, ...]
    """How specific the route is: among routes that match the same path, the greatest rank applies.
    Per segment, 2 is a literal, 1 a variable, and `**` is nothing; the 0 at the end means that the
    route ends there."""

    @classmethod
    def of(cls, text: str, value: Requirement | str) -> "Route":
        """Makes a route. Raises ValueError with a sentence about the problem."""
        pattern = parse_pattern(text)
        needs = requirement_of(value)
        resource = resource_of(needs, pattern) if isinstance(needs, Needs) else None
        rank = tuple(1 if segment is None else 2 for segment in pattern.segments)
        return cls(text, pattern, needs, resource, rank if pattern.rest else (*rank, 0))

    def takes(self, path: Path) -> bool:
        """Whether it matches a path that it `could_take`."""
        pattern = self.pattern
        return (pattern.rest or pattern.slash == path.slash) and all(
            literal is None or literal == segment
            for literal, segment in zip(pattern.segments, path.sent, strict=False)
        )

    def asks(self, path: Path) -> Asked | Public:
        """The requirement of a request for a path that it could match."""
        if isinstance(self.needs, Public):
            return PUBLIC
        if self.resource is None:
            return Asked(self.needs.permission, None, None)
        resource_type, place = self.resource
        return Asked(self.needs.permission, resource_type, path.decoded[place])

    def asks_as(self, other: "Route") -> bool:
        """Whether both have the same requirement for every path; their variables have the same
        indexes."""
        if isinstance(self.needs, Public) or isinstance(other.needs, Public):
            return self.needs is other.needs
        return self.needs.permission == other.needs.permission and self.resource == other.resource


Ends = dict[str | None, list[Route]]
"""Routes that end at a node, by method. Routes of the same method differ in letter case or a
slash."""


@dataclass(slots=True)
class Node:
    """A node of the tree. Ignores letter case and a slash at the end."""

    literals: "dict[str, Node]" = field(default_factory=dict)
    variable: "Node | None" = None
    ends: Ends = field(default_factory=dict)
    rests: Ends = field(default_factory=dict)
    """Routes that continue with `**`."""
    methods: set[str | None] = field(default_factory=set)
    """The methods of all routes that end here or below."""

    def add(self, route: Route) -> Iterator[Problem]:
        """Adds a route to the tree of this root. Yields its conflicts with routes at the same
        node."""
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
        """The ends of the routes that match a path if letter case, escapes and a slash at the end
        are ignored."""
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
        """Pairs of routes that could match the same path, neither of them more specific."""
        # Pairs of nodes that the same path may lead to. Routes below `left` were more specific at
        # first; if the pair is `crossed`, routes below `right` were so at a later segment.
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
            left, right, crossed = pending.pop()
            if not any(_meeting(method, right.methods) for method in left.methods):
                continue
            if crossed:
                yield from _problems((left.ends, left.rests), (right.ends, right.rests))
                if right.rests:
                    yield from _problems(_below(left), (right.rests,))
            if left.rests:
                yield from _problems((left.rests,), _below(right))
            pending += (
                (left.literals[segment], right.literals[segment], crossed)
                for segment in left.literals.keys() & right.literals.keys()
            )
            rights = _children(right) if crossed else list(right.literals.values())
            if left.variable is not None and rights:
                pending.append((left.variable, _merged(rights), True))
            lefts = list(left.literals.values()) if crossed else _children(left)
            if right.variable is not None and lefts:
                pending.append((_merged(lefts), right.variable, crossed))
        if pending:  # No real map comes near this, and no map may stop a server.
            route = _any(pending[-1][0]).text
            yield Problem((route,), "shares too many variables with too many other routes")


def _problems(these: Iterable[Ends], others: Iterable[Ends]) -> Iterator[Problem]:
    """Pairs of routes whose methods overlap, of routes that match the same path."""
    for ends, other_ends in product(these, list(others)):
        for method, routes in ends.items():
            meeting = [other_ends[name] for name in _meeting(method, other_ends.keys())]
            for route, other in product(routes, chain.from_iterable(meeting)):
                what = "could take the same path, and neither is the more specific"
                yield Problem((route.text, other.text), what)


def _any(node: Node) -> Route:
    while not (node.ends or node.rests):
        node = _children(node)[0]
    ((first, *_), *_) = (node.ends or node.rests).values()
    return first


def _meeting(method: str | None, others: Set[str | None]) -> Set[str | None]:
    """The methods among `others` that overlap with a method. A route for GET also matches HEAD."""
    if method is None:
        return others
    return others & {method, {"GET": "HEAD", "HEAD": "GET"}.get(method), None}


def _merged(nodes: Iterable[Node]) -> Node:
    """Merges several nodes into a new node."""
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
    whole.literals = {segment: _merged(children) for segment, children in literals.items()}
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
