"""Route maps: the cases that every language runs, and a second matcher, written to be read."""

import itertools
import json
import string
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pdp_routes import (
    PUBLIC,
    Asked,
    Needs,
    Public,
    RouteMapInvalid,
    RouteRefused,
    Routes,
    problem_of,
)

_CASES = json.loads(
    (Path(__file__).parents[2] / "conformance" / "routes.json").read_text(encoding="utf-8")
)


def _routes(written: Mapping[str, Any]) -> Routes:
    return Routes(
        {
            route: needs if isinstance(needs, str) else Needs(**needs)
            for route, needs in written.items()
        }
    )


def _matched(routes: Routes, method: str, path: str) -> Any:
    """The result that a case expects."""
    try:
        asked = routes.match(method, path)
    except RouteRefused:
        return "refused"
    if isinstance(asked, Public):
        return "public"
    found: dict[str, Any] = {"permission": asked.permission}
    if asked.resource_type is not None:
        found["resource"] = {"type": asked.resource_type, "id": asked.resource_id}
    return found


@pytest.mark.parametrize("case", _CASES["maps"], ids=lambda case: case["name"])
def test_a_request_needs_what_the_map_says(case):
    routes = _routes(case["routes"])
    wrong = [
        (asked, found)
        for asked in case["cases"]
        if (found := _matched(routes, asked["method"], asked["path"])) != asked["expect"]
    ]
    assert not wrong


@pytest.mark.parametrize("case", _CASES["invalid"], ids=lambda case: case["name"])
def test_a_map_that_cannot_be_meant_is_not_made(case):
    with pytest.raises(RouteMapInvalid) as caught:
        _routes(case["routes"])
    (problem,) = caught.value.problems
    assert set(problem.routes) <= set(case["routes"])
    assert all(repr(route[:100])[1:-1] in str(caught.value) for route in problem.routes)


def test_a_refusal_says_whether_the_map_or_the_path_is_the_reason():
    routes = Routes({"/admin/**": "admin:access"})
    for path, reason in {"/x": "no_route", "/admin//x": "ambiguous_path"}.items():
        with pytest.raises(RouteRefused) as caught:
            routes.match("GET", path)
        assert caught.value.reason == reason


def test_all_problems_of_a_map_are_reported_at_once():
    with pytest.raises(RouteMapInvalid) as caught:
        Routes({"x": "a:b", "/a": "no", "/b/{x}": "a:b", "/{y}/c": "a:b"})
    assert [set(problem.routes) for problem in caught.value.problems] == [
        {"x"},
        {"/a"},
        {"/b/{x}", "/{y}/c"},
    ]


@pytest.mark.parametrize("value", [None, True, 1, {"permission": "a:b"}, ["public"], Needs(None)])  # type: ignore[arg-type]
def test_what_is_no_requirement_is_not_taken_for_one(value):
    with pytest.raises(RouteMapInvalid):
        Routes({"/a": value})


def test_a_route_can_be_judged_by_itself():
    assert problem_of("GET /a/{x}", Needs("a:b", "a/{x}")) is None
    assert problem_of("GET /a/{x}", PUBLIC) is None
    assert problem_of("GET /a/{x}", Needs("a:b", "a/{y}")) == "the path has no variable {y}"


def test_public_cannot_be_taken_for_a_yes():
    with pytest.raises(TypeError):
        bool(PUBLIC)


def test_ten_thousand_routes_are_made_and_asked_without_delay():
    literals = {f"/tenants/t{number}/**": "tenant:access" for number in range(5_000)}
    things = {
        f"GET /tenants/{{id}}/thing{number}": f"thing{number}:view" for number in range(5_000)
    }
    with pytest.raises(RouteMapInvalid, match="neither"):
        Routes(literals | things)
    things = {f"/things/{{id}}/thing{number}": f"thing{number}:view" for number in range(5_000)}
    routes = Routes(literals | things)
    assert routes.match("GET", "/things/a/thing4999") == Asked("thing4999:view", None, None)
    assert routes.match("GET", "/tenants/t4999/x") == Asked("tenant:access", None, None)
    with pytest.raises(RouteMapInvalid, match="at most"):
        Routes({f"/{number}": "a:b" for number in range(10_001)})


def test_a_map_of_which_no_one_could_say_what_it_means_does_not_keep_a_server_busy():
    random = Random(7)
    routes = {}
    for end in range(200):
        segments = [random.choice(["a", f"{{v{place}}}"]) for place in range(25)]
        routes[f"/{'/'.join(segments)}/{end}"] = "a:b"
    with pytest.raises(RouteMapInvalid, match="too many variables"):
        Routes(routes)


def test_the_package_needs_nothing_but_python():
    source = str(Path(__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {source!r}); import pdp_routes"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


@given(st.text() | st.text("/%.;\\#?aA25efcC0", max_size=12).map("/".__add__), st.text(max_size=5))
def test_no_path_and_no_method_is_anything_but_answered_or_refused(path, method):
    routes = Routes({"/**": "public", "/a/{x}": Needs("a:b", "a/{x}"), "GET /a/**": "a:c"})
    try:
        asked = routes.match(method, path)
    except RouteRefused:
        return
    if isinstance(asked, Asked) and asked.resource_id is not None:
        assert asked.resource_id
        assert not set(asked.resource_id) & set("/\\%;?#\0\n")


# --- a second matcher ---------------------------------------------------------------------------

_SEGMENTS = st.sampled_from(["a", "A", "b", "{}", "{}"])
_PLANS = st.tuples(
    st.sampled_from(["", "", "", "GET ", "HEAD ", "POST "]),
    st.lists(_SEGMENTS, max_size=3),
    st.sampled_from(["", "", "/", "/**"]),
)
_NEEDS = st.sampled_from(["t:p", "t:q", "public", "first", "last"])
_PATHS = [
    "/" + "/".join(segments) + slash
    for length in range(5)
    for segments in itertools.product(("a", "A", "b", "z"), repeat=length)
    for slash in (("",) if not length else ("", "/"))
]


def _written(plan, needs):
    method, segments, end = plan
    names = iter(string.ascii_lowercase)
    segments = [f"{{{next(names)}}}" if segment == "{}" else segment for segment in segments]
    variables = [segment for segment in segments if segment[0] == "{"]
    route = method + "".join(f"/{segment}" for segment in segments) + end
    if route[-1:] in {"", " "}:
        route += "/"
    if needs in {"first", "last"}:
        variable = variables[0 if needs == "first" else -1] if variables else None
        return route, Needs("t:r", f"t/{variable}" if variable else None)
    return route, PUBLIC if needs == "public" else Needs(needs)


_MAPS = st.lists(st.builds(_written, _PLANS, _NEEDS), max_size=6).map(dict)


def _taken(route, method, path, *, loose):
    """How specific a route is on a path, and its variables; None: it does not take it."""
    for_method, _, pattern = route.rpartition(" ")
    named = 3 if for_method == method else 2 if (for_method, method) == ("GET", "HEAD") else 1
    if for_method and named == 1:
        return None
    if pattern.endswith("/**"):
        pattern, rest = pattern[:-3], True
    else:
        rest = False
        if not loose and pattern.endswith("/") != path.endswith("/"):
            return None
    wanted = [part for part in pattern.split("/") if part]
    given = [part for part in path.split("/") if part]
    if len(given) < len(wanted) or (len(given) > len(wanted) and not rest):
        return None
    variables = {}
    points = []
    for want, have in itertools.zip_longest(wanted, given):
        if want is None:
            points.append(0)
        elif want[0] == "{":
            points.append(1)
            variables[want] = have
        elif want == have or (loose and want.lower() == have.lower()):
            points.append(2)
        else:
            return None
    return points, not rest, named, variables


def _more_specific(one, other):
    """-1, 0, 1; None: neither is."""
    signs = {(a > b) - (a < b) for a, b in zip(one[0], other[0], strict=True)} - {0}
    if len(signs) == 2:
        return None
    last = ((one[1:3] > other[1:3]) - (one[1:3] < other[1:3]),)
    return next(iter(signs or last))


def _asks(needs, taken):
    if needs is PUBLIC:
        return PUBLIC
    if needs.resource is None:
        return Asked(needs.permission, None, None)
    resource_type, _, variable = needs.resource.partition("/")
    return Asked(needs.permission, resource_type, taken[3][variable])


def _all_taken(written, method, path, *, loose):
    return [
        (route, taken, _asks(needs, taken))
        for route, needs in written.items()
        if (taken := _taken(route, method, path, loose=loose)) is not None
    ]


def _is_ambiguous(written):
    for method, path in itertools.product(("GET", "HEAD", "POST", "PUT"), _PATHS):
        found = _all_taken(written, method, path, loose=True)
        for one, other in itertools.combinations(found, 2):
            more = _more_specific(one[1], other[1])
            same_slash = one[0].endswith("/") == other[0].endswith("/")
            same_words = [w for w in one[0].split("/") if w[:1] != "{"] == [
                w for w in other[0].split("/") if w[:1] != "{"
            ]
            if more is None or (more == 0 and (one[2] != other[2] or (same_slash and same_words))):
                return True
    return False


def _second_opinion(written, method, path):
    standing = _all_taken(written, method, path, loose=False)
    for _, taken, asked in standing:
        if all(_more_specific(taken, other) != -1 for _, other, _ in standing):
            could = _all_taken(written, method, path, loose=True)
            others = {its for _, other, its in could if _more_specific(taken, other) != 1}
            return asked if others <= {asked} else "refused"
    return "refused"


@given(_MAPS, st.randoms())
def test_a_second_matcher_agrees_and_the_order_of_routes_does_not_matter(written, random):
    try:
        routes = Routes(written)
    except RouteMapInvalid:
        assert _is_ambiguous(written)
        return
    assert not _is_ambiguous(written)
    order = list(written.items())
    random.shuffle(order)
    shuffled = Routes(dict(order))
    for method, path in itertools.product(("GET", "HEAD", "PUT"), random.sample(_PATHS, 60)):
        expected = _second_opinion(written, method, path)
        for matcher in (routes, shuffled):
            try:
                found: Any = matcher.match(method, path)
            except RouteRefused:
                found = "refused"
            assert found == expected, (method, path)
