"""Parses the text of a route: `GET /courses/{id}`, `/admin/**`."""

import re
from dataclasses import dataclass
from typing import Final

from pdp_routes.values import PUBLIC, Needs, Requirement

ROUTE_CHARACTERS_MAX: Final = 256
_NAME_CHARACTERS_MAX: Final = 128

_METHOD = re.compile(r"[A-Z][A-Z0-9_-]*")
_LITERAL = re.compile(r"[A-Za-z0-9\-._~!$&'()+,=:@]+")
_VARIABLE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_TYPE = r"[a-z][a-z0-9_.-]*"
_PERMISSION = re.compile(f"{_TYPE}:{_TYPE}")
_RESOURCE = re.compile(rf"({_TYPE})/(\{{.*\}})")


@dataclass(frozen=True, slots=True)
class Pattern:
    """The requests that a route matches."""

    method: str | None
    """None: all methods."""
    segments: tuple[str | None, ...]
    """Literals, and None for a variable."""
    variables: dict[str, int]
    """The index of each variable's segment."""
    rest: bool
    """Whether it ends with `**`."""
    slash: bool
    """Whether it ends with a slash. The slash of `/`, which has no segments, counts."""


def parse_pattern(route: str) -> Pattern:
    """Parses a route. Raises ValueError with a sentence about the problem."""
    if len(route) > ROUTE_CHARACTERS_MAX:
        raise ValueError(f"has more than {ROUTE_CHARACTERS_MAX} characters")
    method, space, path = route.rpartition(" ")
    if space and not _METHOD.fullmatch(method):
        raise ValueError("must be a path such as /courses/{id}, or GET and one space before it")
    if not path.startswith("/"):
        raise ValueError("its path must begin with /")
    parts = path[1:].split("/")
    rest = parts[-1] == "**"
    slash = parts[-1] == ""
    if rest or slash:
        parts.pop()
    segments: list[str | None] = []
    variables: dict[str, int] = {}
    for place, part in enumerate(parts):
        if variable := _VARIABLE.fullmatch(part):
            if variable[1] in variables:
                raise ValueError(f"names the variable {part} twice")
            variables[variable[1]] = place
            segments.append(None)
        else:
            _check_literal(part)
            segments.append(part)
    return Pattern(method or None, tuple(segments), variables, rest, slash)


def _check_literal(part: str) -> None:
    if not part:
        raise ValueError("has an empty segment")
    if "*" in part:
        raise ValueError("a * is only at the end, as **; one segment is a variable: {name}")
    if part.startswith(":"):
        raise ValueError(f"a variable is written {{name}}, not {part}")
    if part in {".", ".."}:
        raise ValueError("has a segment . or .., and every request for one is refused")
    if not _LITERAL.fullmatch(part):
        raise ValueError(
            f"the segment {part!r} is neither a variable {{name}} nor letters, digits and "
            "-._~!$&'()+,=:@"
        )


def resource_of(needs: Needs, pattern: Pattern) -> tuple[str, int] | None:
    """The type of the resource, and the index of the segment with its id; None: there is no
    resource. Raises ValueError with a sentence about the problem."""
    if not _fits(_PERMISSION, needs.permission):
        raise ValueError(f"{needs.permission!r} is not a permission such as course:view")
    if needs.resource is None:
        return None
    resource = _RESOURCE.fullmatch(needs.resource)
    if resource is None or not _fits(_RESOURCE, needs.resource):
        raise ValueError(f"{needs.resource!r} is not a resource such as course/{{id}}")
    place = pattern.variables.get(resource[2][1:-1])
    if place is None:
        raise ValueError(f"the path has no variable {resource[2]}")
    return resource[1], place


def _fits(grammar: re.Pattern[str], text: object) -> bool:
    return (
        isinstance(text, str)
        and len(text) <= _NAME_CHARACTERS_MAX
        and grammar.fullmatch(text) is not None
    )


def requirement_of(value: Requirement | str) -> Requirement:
    """The requirement of a route; a text is a permission or `public`. Raises ValueError with a
    sentence."""
    if value == "public" or value is PUBLIC:
        return PUBLIC
    if isinstance(value, str):
        return Needs(value)
    if isinstance(value, Needs):
        return value
    raise ValueError("must need a permission, or be public")


def problem_of(route: str, requirement: Requirement | str) -> str | None:
    """The problem of a single route as a sentence; None: there is none."""
    try:
        pattern = parse_pattern(route)
        needs = requirement_of(requirement)
        if isinstance(needs, Needs):
            resource_of(needs, pattern)
    except ValueError as error:
        return str(error)
    return None
