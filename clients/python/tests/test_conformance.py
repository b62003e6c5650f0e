"""clients/conformance, run by the guard for threads and the one for asyncio."""

import asyncio
import json
import logging
import traceback
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pdp_client import (
    Actor,
    AsyncGuard,
    Decision,
    DenialKind,
    Denied,
    Factor,
    Forbidden,
    Guard,
    GuardError,
    PdpRefused,
    PdpUnavailable,
    Question,
    Resource,
    RouteRefused,
    StepUp,
    TlsOptions,
    Unauthenticated,
    refusal_of,
    session_token,
)
from pdp_client.refusals import trailers_of
from pdp_client.values import Effect

FOLDER = Path(__file__).parents[2] / "conformance"
OUTCOMES: dict[str, type[GuardError]] = {
    "unauthenticated": Unauthenticated,
    "forbidden": Forbidden,
    "unavailable": PdpUnavailable,
    "refused": PdpRefused,
}
Ask = Callable[..., Any]
"""`ask("require", ...)`: a method of a guard, which is closed after."""


def cases(file: str, key: str = "cases") -> Any:
    found = json.loads((FOLDER / f"{file}.json").read_text(encoding="utf-8"))[key]
    return pytest.mark.parametrize("case", found, ids=lambda case: case.get("name"))


def ask_in_threads(target: str, method: str, *arguments: Any, **options: Any) -> Any:
    with Guard(target, **options) as guard:
        return getattr(guard, method)(*arguments)


def ask_in_asyncio(target: str, method: str, *arguments: Any, **options: Any) -> Any:
    async def ask() -> Any:
        async with AsyncGuard(target, **options) as guard:
            return await getattr(guard, method)(*arguments)

    return asyncio.run(ask())


@pytest.fixture(params=[ask_in_threads, ask_in_asyncio], ids=["threads", "asyncio"])
def ask(request: pytest.FixtureRequest) -> Ask:
    return request.param


@cases("outcomes")
def test_an_answer_has_the_outcome(
    harness: Mapping[str, Any], ask: Ask, case: Mapping[str, Any], caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    expect, token = case["expect"], harness["tokens"]["instructor"]
    target, context = harness["scripted"], {"run": str(uuid.uuid4())}
    options = {"deadline_seconds": case.get("deadline_ms", 10_000) / 1000}
    permission = f"case:{case['name']}"

    def outcome(method: str) -> Any:
        try:
            if "resources" in case:
                resources = [Resource("case", case["name"])] * case["resources"]
                return ask(target, "permissions", token, resources, context, **options)
            if "questions" in case:
                questions = [Question(permission, None, context)] * case["questions"]
                return ask(target, "batch", token, questions, **options)
            return ask(target, method, token, permission, None, context, **options)
        except GuardError as error:
            return error

    found = outcome("require")
    counting = (token, f"calls:{case['name']}", None, context)
    calls = ask(target, "check", *counting, deadline_seconds=10).revision
    assert calls == expect.get("calls", calls)
    if "permissions" in expect:
        assert [entry["permission"] for entry in found.to_json()] == expect["permissions"]
    elif expect["outcome"] == "answered":
        assert [item.allowed for item in found] == expect["allowed"]
    elif expect["outcome"] == "allowed":
        assert found == Actor(**{"session_id": "", **expect["actor"]})
    else:
        assert type(found) is OUTCOMES[expect["outcome"]]
        assert found.http_status == expect["http_status"]
        if isinstance(found, Denied):
            assert found.decision.step_up == step_up_of(expect)
        result = found.decision if isinstance(found, Denied) else found
        check_result(result, expect, "deadline_ms" in case)
        text = "".join(traceback.format_exception(found)) + repr(vars(found))
        assert token not in f"{text} {refusal_of(found)} {caplog.text}"
    if expect["outcome"] == "allowed" and expect.get("calls", 1) == 1:
        result = outcome("check")
        assert result.allowed is True
        check_result(result, expect, False)


def check_result(result: Any, expect: Mapping[str, Any], slow: bool) -> None:
    for name in ("decision_id", "reason", "code"):
        wanted = {expect[name]} if name in expect else {getattr(result, name, None)}
        if slow and name == "code":
            wanted.add("DEADLINE_EXCEEDED")
        assert getattr(result, name, None) in wanted
    if "violations" in expect:
        found = [
            {"field": violation.field, "description": violation.description}
            for violation in result.violations
        ]
        assert found == expect["violations"]


@cases("decisions")
def test_a_real_pdp_decides(harness: Mapping[str, Any], ask: Ask, case: Mapping[str, Any]):
    expect = case["expect"]
    try:
        ask(
            harness["pdp"],
            "require",
            harness["tokens"][case["token"]],
            case["permission"],
            resource_of(case),
            case.get("context"),
            api_key=harness["api_key"],
            deadline_seconds=10,
        )
    except GuardError as error:
        assert type(error) is OUTCOMES[expect["outcome"]]
        assert error.http_status == expect["http_status"]
        result = error.decision if isinstance(error, Denied) else error
        assert result.reason == expect["reason"]
    else:
        assert expect["outcome"] == "allowed"


@cases("decisions", "can")
def test_a_set_of_permissions_holds_what_is_allowed(
    harness: Mapping[str, Any], ask: Ask, case: Mapping[str, Any]
):
    questions = [
        Question(question["permission"], resource_of(question)) for question in case["questions"]
    ]
    found = ask(
        harness["pdp"],
        "can",
        harness["tokens"][case["token"]],
        questions,
        api_key=harness["api_key"],
        deadline_seconds=10,
    )
    assert [found.holds(question.permission, question.resource) for question in questions] == case[
        "holds"
    ]
    assert not found.holds("course:other")
    assert len(found.to_json()) == len({json.dumps(entry) for entry in found.to_json()})
    with pytest.raises(TypeError, match="no truth value"):
        bool(found)


@cases("decisions", "permissions")
def test_all_permissions_on_resources(
    harness: Mapping[str, Any], ask: Ask, case: Mapping[str, Any]
):
    resources = [resource_of({"resource": resource}) for resource in case["resources"]]
    found = ask(
        harness["pdp"],
        "permissions",
        harness["tokens"][case["token"]],
        resources,
        case.get("context"),
        api_key=harness["api_key"],
        deadline_seconds=10,
    )
    names = ("course:delete", "course:edit", "course:view", "page:view", "admin:access")
    assert [
        [name for name in names if found.holds(name, resource)] for resource in resources
    ] == case["holds"]
    assert not any(found.holds(name) for name in names)


def resource_of(case: Mapping[str, Any]) -> Resource | None:
    if "resource" not in case:
        return None
    written = case["resource"]
    parent = written.get("parent")
    return Resource(**{**written, "parent": parent and Resource(**parent)})


def test_a_role_by_name_is_a_permission(harness: Mapping[str, Any], ask: Ask):
    options = {"api_key": harness["api_key"], "deadline_seconds": 10}
    tokens = harness["tokens"]
    actor = ask(harness["pdp"], "require_role", tokens["admin"], "admin", **options)
    assert actor.user_id == "user_ada"
    with pytest.raises(Forbidden):
        ask(harness["pdp"], "require_role", tokens["student"], "admin", **options)


def test_a_caller_without_the_key_is_refused(harness: Mapping[str, Any], ask: Ask):
    with pytest.raises(PdpRefused) as raised:
        ask(
            harness["pdp"],
            "require",
            harness["tokens"]["admin"],
            "admin:access",
            deadline_seconds=10,
        )
    assert raised.value.reason == "CALLER_UNAUTHENTICATED"


def test_mutual_tls_is_spoken(harness: Mapping[str, Any], ask: Ask):
    files = dict(harness["tls"])
    target = files.pop("target")
    actor = ask(
        target,
        "require",
        "t",
        "case:allow",
        tls=TlsOptions(**files),
        api_key="k",
        deadline_seconds=10,
    )
    assert actor.user_id == "user_1"
    with pytest.raises(PdpUnavailable):
        ask(target, "require", "t", "case:allow", tls=TlsOptions(ca=files["ca"]))


def test_a_server_without_the_service_is_no_pdp(harness: Mapping[str, Any], ask: Ask):
    target = harness["http"].removeprefix("http://")
    with pytest.raises(PdpRefused, match="UNIMPLEMENTED"):
        ask(target, "require", "t", "case:allow", deadline_seconds=10)


@cases("tokens")
def test_the_token_of_a_request(case: Mapping[str, Any]):
    headers = [(name, value) for name, value in case["headers"]]
    named = {"cookie_name": case["cookie_name"]} if "cookie_name" in case else {}
    assert session_token(headers, **named) == case["token"]
    if len({name.lower() for name, _ in headers}) == len(headers):
        assert session_token(dict(headers), **named) == case["token"]


@cases("refusals")
def test_what_a_browser_is_answered(case: Mapping[str, Any]):
    refusal = refusal_of(error_of(case))
    assert refusal.status == case["status"]
    assert refusal.headers == case["headers"]
    assert json.loads(refusal.body) == case["body"]
    if "grpc" in case:
        assert trailers_of(error_of(case)) == case["trailers"]


def step_up_of(case: Mapping[str, Any]) -> StepUp | None:
    told = case.get("step_up")
    return told and StepUp(Factor(told["factor"]), told["max_age_seconds"])


def error_of(case: Mapping[str, Any]) -> GuardError:
    if case["outcome"] == "route_refused":
        return RouteRefused("no_route")
    kind = OUTCOMES[case["outcome"]]
    if not issubclass(kind, Denied):
        return kind("the details")
    denial_kind = DenialKind(case["outcome"])
    decision = Decision(
        Effect.DENY,
        "WRONG_ORGANIZATION",
        "Why.",
        denial_kind,
        None,
        case["decision_id"],
        step_up=step_up_of(case),
    )
    return kind(decision)
