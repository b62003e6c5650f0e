"""A handler runs only if the guard judged its own route, whatever the prefix.

The handlers are in the real router of each framework (`routers.py`), and the PDP allows
everything: so the permission of the request shows which route the guard judged.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import pdp_client.adapting
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from pdp_client import Guard
from pdp_client.django import GuardMiddleware
from pdp_client.starlette import _RequestUnchanged

from clients.python.tests.kit.answerer import Answerer, serve
from clients.python.tests.kit.routers import Case, forget, ran, send
from tests.kit import soak

FRAMEWORKS = ["starlette", "fastapi", "flask", "django", "django-asgi"]
PREFIXES = st.sampled_from(["", "", "", "/api", "/admin", "/mnt"])
PLAIN = ["admin", "x", "api", "mnt", "open", "y"]
ODD = ["%61dmin", "%78", "admin%2Fx", "%2Fadmin", "..", ".", "%2e%2e", "%2E", "", "X", "Admin"]
ODD += ["x%00", "x;a", "x%0A", "%C3%A9", "%ff", "x%20", "%252e", "x%3Fa", "x\\y"]
SEGMENTS = st.sampled_from(PLAIN) | st.sampled_from(ODD)
PATHS = st.sampled_from(
    ["/", "/admin/x", "/admin/x/", "/admin/y", "/api/admin/x", "/open", "/x"]
) | st.lists(SEGMENTS, max_size=5).map(lambda segments: "/" + "/".join(segments))
TARGETS = st.builds(
    lambda prefixes, path, query: "".join(prefixes) + path + query,
    st.lists(st.sampled_from(["/api", "/admin", "/mnt", "/%6Dnt", "//mnt"]), max_size=3),
    PATHS,
    st.sampled_from(["", "", "?a=/../admin/x"]),
)
CHANGES = st.sampled_from(
    [None] * 4 + [("path", "/admin/x"), ("path", "/x"), ("root_path", "/admin"), ("method", "POST")]
)

PLAIN_CASE = Case(
    framework="starlette",
    root="",
    says="all",
    setting="",
    mount="",
    outside=False,
    forwarded="",
    change=None,
    websocket=False,
    method="GET",
    target="/admin/x",
)
DEPLOYMENTS: list[dict[str, Any]] = [
    {},
    {"root": "/api"},
    {"root": "/api", "says": "without prefix"},
    {"root": "/api", "says": "decoded"},
    {"root": "/admin"},
    {"setting": "/api"},
    {"root": "/api", "setting": "/api"},
    {"root": "/api", "setting": "/api", "says": "without prefix"},
    {"mount": "/mnt"},
    {"mount": "/mnt", "root": "/api"},
    {"mount": "/mnt", "outside": True},
    {"mount": "/mnt", "outside": True, "root": "/api"},
    {"mount": "/mnt", "outside": True, "root": "/api", "says": "without prefix"},
    {"mount": "/mnt", "outside": True, "setting": "/api"},
    {"forwarded": "/open"},
    {"forwarded": "/admin", "mount": "/mnt"},
]
SEARCH = settings(max_examples=1500, deadline=None, database=None, phases=[Phase.generate])


def cases(framework: str) -> st.SearchStrategy[Case]:
    return st.builds(
        Case,
        framework=st.just(framework),
        root=PREFIXES | st.just("/api/"),
        says=st.sampled_from(["all", "without prefix", "decoded"]),
        setting=PREFIXES,
        mount=st.sampled_from(["", "/mnt", "/api"]),
        outside=st.booleans(),
        forwarded=PREFIXES,
        change=CHANGES,
        websocket=st.just(False) if "django" in framework else st.booleans(),
        method=st.sampled_from(["GET"] * 5 + ["POST", "HEAD", "OPTIONS", "get"]),
        target=TARGETS,
    )


@pytest.fixture(scope="module")
def answerer() -> Iterator[Answerer]:
    """Allows whatever is asked."""
    one = Answerer()
    server = serve(one, "127.0.0.1:0")
    yield one
    server.stop(None).wait()


@pytest.fixture(scope="module")
def guard(answerer: Answerer) -> Iterator[Guard]:
    with Guard(answerer.address, deadline_seconds=10) as one:
        yield one


def outcome(case: Case, guard: Guard, answerer: Answerer) -> tuple[list[str], list[str]]:
    """The handlers that ran, and those whose routes were judged."""
    answerer.requests.clear()
    send(case, guard)
    judged = [request.permission.removesuffix(":run") for request in answerer.requests]  # type: ignore[attr-defined]
    return list(ran), judged or ["open"]  # what is public is not asked about


@pytest.mark.soak
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_handler_runs_only_if_the_route_that_was_judged_is_its_own(
    framework: str, guard: Guard, answerer: Answerer
):
    @settings(max_examples=soak.count(2_000, sample=60), deadline=None, database=None)
    @given(cases(framework))
    def holds(case: Case) -> None:
        handlers, judged = outcome(case, guard, answerer)
        assert handlers in ([], judged)

    holds()


@pytest.mark.parametrize(
    ("framework", "deployment"),
    [
        (framework, deployment)
        for framework in FRAMEWORKS
        for deployment in DEPLOYMENTS
        # Here Django itself, whose guard is inside of the mount, finds no view.
        if framework != "django-asgi" or not deployment.get("outside")
    ],
    ids=str,
)
def test_behind_every_prefix_the_same_handlers_are_reached_and_judged(
    framework: str, deployment: dict[str, Any], guard: Guard, answerer: Answerer
):
    case = replace(PLAIN_CASE, framework=framework, **deployment)
    for target, name in {"/admin/x": "admin", "/admin/%C3%A9": "one", "/open": "open"}.items():
        asked = replace(case, target=case.mount + target)
        assert outcome(asked, guard, answerer) == ([name], [name])
        if "django" not in framework:
            assert outcome(replace(asked, websocket=True), guard, answerer) == ([name], [name])


@pytest.mark.parametrize("framework", ["starlette", "fastapi", "django", "django-asgi"])
@pytest.mark.parametrize("change", [("path", "/open"), ("method", "POST")])
def test_a_request_that_changes_behind_the_guard_is_refused(
    framework: str,
    change: tuple[str, str],
    guard: Guard,
    answerer: Answerer,
    caplog: pytest.LogCaptureFixture,
):
    case = replace(PLAIN_CASE, framework=framework, change=change, target="/x")
    assert outcome(case, guard, answerer)[0] == []
    assert "request_changed" in caplog.text


def finds_a_gap(framework: str, guard: Guard, answerer: Answerer, **given: Any) -> bool:
    def is_gap(case: Case) -> bool:
        handlers, judged = outcome(case, guard, answerer)
        return handlers not in ([], judged)

    strategy = cases(framework).map(lambda case: replace(case, **given))
    try:
        find(strategy, is_gap, settings=SEARCH)
    except NoSuchExample:
        return False
    return True


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_positive_control_a_guard_that_judges_the_whole_path_is_found_out(
    framework: str, guard: Guard, answerer: Answerer, monkeypatch: pytest.MonkeyPatch
):
    judge = pdp_client.adapting.routed

    def judge_all(routes: Any, method: str, path: str, sent: Any) -> Any:
        return judge(routes, method, unquote(*sent).partition("?")[0] if sent else path, sent)

    monkeypatch.setattr(
        f"pdp_client.{framework.partition('-')[0]}.routed", judge_all, raising=False
    )
    monkeypatch.setattr("pdp_client.starlette.routed", judge_all)
    assert finds_a_gap(framework, guard, answerer, change=None)


@pytest.mark.parametrize("framework", ["starlette", "fastapi", "django", "django-asgi"])
def test_positive_control_middleware_that_changes_a_request_is_found_out(
    framework: str, guard: Guard, answerer: Answerer, monkeypatch: pytest.MonkeyPatch
):
    async def pass_on(self: Any, *request: Any) -> None:
        await self.app(*request)

    monkeypatch.setattr(_RequestUnchanged, "__call__", pass_on)
    monkeypatch.setattr(GuardMiddleware, "_process_view", lambda *_: None)
    forget()
    assert finds_a_gap(framework, guard, answerer, root="", setting="", mount="")
    forget()
