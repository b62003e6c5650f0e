"""Checks on whole sets: what no entity can show by itself. Iterative, so depth is no danger."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from pdp import limits
from pdp.errors import Violation
from pdp.model import Resource, ResourceRef, Role

N = TypeVar("N", bound=Hashable)


def check_roles(roles: Iterable[Role]) -> list[Violation]:
    """Every inherited role exists, none inherits from itself by any way, and no chain of
    inheritance has more than `ROLE_DEPTH_MAX` steps. Fields are `roles.NAME.inherits`."""
    by_name = {role.name: role for role in roles}
    violations = [
        Violation(f"roles.{role.name}.inherits", f"there is no role {name!r}")
        for role in by_name.values()
        for name in role.inherits
        if name not in by_name
    ]
    graph = {
        role.name: [name for name in role.inherits if name in by_name] for role in by_name.values()
    }
    return violations + [
        Violation(f"roles.{name}.inherits", description)
        for name, description in _check_graph(graph, limits.ROLE_DEPTH_MAX)
    ]


def check_parents(resources: Iterable[Resource]) -> list[Violation]:
    """No resource is above itself, and none has more than `RESOURCE_DEPTH_MAX` others above it.
    Parents that are not among the resources are not followed. Fields are
    `resources.TYPE/ID.parent`."""
    by_ref = {ResourceRef(one.type, one.id): one.parent for one in resources}
    graph: dict[ResourceRef, list[ResourceRef]] = {
        ref: [parent] if parent is not None and parent in by_ref else []
        for ref, parent in by_ref.items()
    }
    return [
        Violation(f"resources.{ref.type}/{ref.id}.parent", description)
        for ref, description in _check_graph(graph, limits.RESOURCE_DEPTH_MAX)
    ]


def _check_graph(graph: Mapping[N, Sequence[N]], depth_max: int) -> list[tuple[N, str]]:
    """The nodes on or behind a circle, else those whose longest path is too long."""
    waiting = {node: len(set(targets)) for node, targets in graph.items()}
    sources: dict[N, list[N]] = {node: [] for node in graph}
    for node, targets in graph.items():
        for target in set(targets):
            sources[target].append(node)
    # From the ends backwards (Kahn): what never becomes ready leads into a circle.
    depth = dict.fromkeys(graph, 0)
    ready = [node for node, count in waiting.items() if count == 0]
    while ready:
        target = ready.pop()
        for node in sources[target]:
            depth[node] = max(depth[node], depth[target] + 1)
            waiting[node] -= 1
            if waiting[node] == 0:
                ready.append(node)
    circular = {node for node, count in waiting.items() if count > 0}
    problems = [(node, "goes in a circle") for node in _on_circles(graph, circular)]
    problems += [
        (node, f"is {depth[node]} steps deep, at most {depth_max} are allowed")
        for node in graph
        if node not in circular and depth[node] > depth_max
    ]
    return problems


def _on_circles(graph: Mapping[N, Sequence[N]], circular: set[N]) -> list[N]:
    """Those of `circular` that nothing outside of circles leads to needlessly: peels the nodes
    that only lead into a circle, so that a message names the circle itself."""
    left = set(circular)
    sources = dict.fromkeys(left, 0)
    for node in left:
        for target in set(graph[node]):
            if target in sources:
                sources[target] += 1
    bare = [node for node, count in sources.items() if count == 0]
    while bare:
        node = bare.pop()
        left.discard(node)
        for target in set(graph[node]):
            if target in sources:
                sources[target] -= 1
                if sources[target] == 0 and target in left:
                    bare.append(target)
    return [node for node in graph if node in left]
