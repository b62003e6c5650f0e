"""No answer is never an allow (Envoy GHSA-9g5w-hqr3-w2ph, CVE-2023-27488: a failed authorization
call that let the request pass)."""

import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from pdp_client import (
    Forbidden,
    Guard,
    GuardError,
    PdpRefused,
    PdpUnavailable,
    Question,
    Token,
    Unauthenticated,
    Violation,
)
from pdpapi.v1 import core_pb2
from pdpapi.v1.decision_service_pb2 import BatchCheckResponse, CheckResponse

from clients.python.tests.kit.answerer import ACTOR, Answerer, allowed, denied, serve, status
from clients.python.tests.kit.names import name_server
from tests.kit.stall import Stopwatch

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1c2VyXzEifQ.c2lnbmF0dXJl"

CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
REFUSED = {
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "FAILED_PRECONDITION",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
}


def test_there_are_16_codes_that_are_not_ok():
    assert len(CODES) == 16


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_no_status_code_but_ok_is_an_answer(answerer: Answerer, code: grpc.StatusCode):
    """Envoy GHSA-9g5w-hqr3-w2ph / CVE-2023-27488."""
    answerer.fails(code)
    expected = PdpRefused if code.name in REFUSED else PdpUnavailable
    # These are asked again until the deadline, so there it must come soon.
    seconds = 0.2 if code.name in {"UNAVAILABLE", "CANCELLED"} else 10
    with Guard(answerer.address, deadline_seconds=seconds) as guard:
        for ask in (
            lambda: guard.check(TOKEN, "course:edit"),
            lambda: guard.require(TOKEN, "course:edit"),
            lambda: guard.batch(TOKEN, [Question("course:edit")]),
        ):
            with pytest.raises(expected) as raised:
                ask()
            assert raised.value.code in {code.name, "DEADLINE_EXCEEDED"}
            assert not isinstance(raised.value, Unauthenticated | Forbidden)
            assert raised.value.http_status in {500, 503}


NOT_ANSWERS = {
    "nothing": b"",
    "not protobuf": b"\xff\xff\xff\xff",
    "HTML": b"<html>502 Bad Gateway</html>",
    "text that is not UTF-8": b"\x22\x02\xc3\x28",
    "cut short": allowed().SerializeToString()[:-1],
    "decision unspecified": allowed(decision=core_pb2.DECISION_UNSPECIFIED),
    "unknown decision": allowed(decision=3),
    "negative decision": allowed(decision=-1),
    "an allow that is a denial": allowed(denial_kind=core_pb2.DENIAL_KIND_FORBIDDEN),
    "an allow of an unknown kind": allowed(denial_kind=9),
    "an allow without an actor": allowed(actor=None),
    "an allow of nobody": allowed(actor=core_pb2.Actor()),
    "a denial of no kind": denied(denial_kind=core_pb2.DENIAL_KIND_UNSPECIFIED),
    "a denial of an unknown kind": denied(denial_kind=9),
    "a time out of range": allowed(reusable_until=Timestamp(seconds=10**17)),
    "a time before all times": allowed(reusable_until=Timestamp(seconds=-(10**17))),
}


@pytest.mark.parametrize("said", NOT_ANSWERS.values(), ids=NOT_ANSWERS)
def test_what_is_not_an_answer_is_an_error(
    answerer: Answerer, guard: Guard, said: CheckResponse | bytes
):
    """Envoy GHSA-9g5w-hqr3-w2ph / CVE-2023-27488."""
    answerer.says(said)
    for ask in (guard.check, guard.require):
        with pytest.raises(PdpUnavailable) as raised:
            ask(TOKEN, "course:edit")
        assert raised.value.http_status == 503


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_batch_answer_of_another_length_is_an_error(answerer: Answerer, guard: Guard, count: int):
    answerer.says(BatchCheckResponse(results=[allowed(actor=None)] * count, actor=ACTOR))
    with pytest.raises(PdpUnavailable, match=f"{count} results to 2 questions"):
        guard.batch(TOKEN, [Question("course:edit"), Question("course:list")])


def test_one_result_that_is_no_answer_spoils_its_batch(answerer: Answerer, guard: Guard):
    answerer.says(BatchCheckResponse(results=[allowed(), allowed(decision=0)], actor=ACTOR))
    with pytest.raises(PdpUnavailable):
        guard.batch(TOKEN, [Question("course:edit"), Question("course:list")])


def test_a_batch_that_allows_nobody_is_an_error(answerer: Answerer, guard: Guard):
    answerer.says(BatchCheckResponse(results=[allowed()]))
    with pytest.raises(PdpUnavailable, match="without an actor"):
        guard.batch(TOKEN, [Question("course:edit")])


def test_a_refusal_names_the_fields_that_are_wrong(answerer: Answerer, guard: Guard):
    violation = error_details_pb2.BadRequest.FieldViolation(
        field="permission", description="is not type:action"
    )
    answerer.fails(
        grpc.StatusCode.INVALID_ARGUMENT,
        "permission: is not type:action",
        error_details_pb2.ErrorInfo(reason="REQUEST_INVALID", domain="pdpapi.v1"),
        error_details_pb2.BadRequest(field_violations=[violation]),
    )
    with pytest.raises(PdpRefused) as raised:
        guard.check(TOKEN, "edit")
    assert raised.value.reason == "REQUEST_INVALID"
    assert raised.value.violations == (Violation("permission", "is not type:action"),)
    assert str(raised.value) == "INVALID_ARGUMENT REQUEST_INVALID permission: is not type:action"


def test_a_passed_limit_is_a_refusal_and_a_full_server_is_unavailable(
    answerer: Answerer, guard: Guard
):
    limit = error_details_pb2.ErrorInfo(reason="LIMIT_EXCEEDED", domain="pdpapi.v1")
    answerer.fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "batch_items_max", limit)
    with pytest.raises(PdpRefused):
        guard.check(TOKEN, "course:edit")
    answerer.fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!")
    with pytest.raises(PdpUnavailable):
        guard.check(TOKEN, "course:edit")


def test_unreadable_status_details_leave_the_status(answerer: Answerer, guard: Guard):
    def answer(_request, context):
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"),))
        context.abort(grpc.StatusCode.INTERNAL, "broken")

    answerer.answer = answer
    with pytest.raises(PdpUnavailable) as raised:
        guard.check(TOKEN, "course:edit")
    assert (raised.value.code, raised.value.reason) == ("INTERNAL", "")


ASKED_AGAIN = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED]
"""The latter a server says that ends, of calls that it has not begun."""


@pytest.mark.parametrize("code", ASKED_AGAIN, ids=lambda code: code.name)
def test_what_a_server_could_not_take_is_asked_again_within_the_deadline(
    answerer: Answerer, guard: Guard, code: grpc.StatusCode
):
    def answer(_request, context):
        if len(answerer.requests) < 3:
            context.abort(code, "not yet")
        return allowed()

    answerer.answer = answer
    assert guard.check(TOKEN, "course:edit").allowed is True
    assert len(answerer.requests) == 3


@pytest.mark.parametrize(
    "code", [code for code in CODES if code not in ASKED_AGAIN], ids=lambda code: code.name
)
def test_nothing_else_is_asked_again(answerer: Answerer, guard: Guard, code: grpc.StatusCode):
    answerer.fails(code)
    with pytest.raises(GuardError):
        guard.check(TOKEN, "course:edit")
    assert len(answerer.requests) == 1


def test_repetition_ends_with_the_deadline(answerer: Answerer):
    answerer.fails(
        grpc.StatusCode.UNAVAILABLE, "stale", error_details_pb2.ErrorInfo(reason="FACTS_STALE")
    )
    with Guard(answerer.address, deadline_seconds=0.5) as guard:
        watch = Stopwatch()
        with pytest.raises(PdpUnavailable) as raised:
            guard.check(TOKEN, "course:edit")
        assert watch.seconds < 2
    assert raised.value.code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
    # Full jitter doubles its ceiling each time: a handful of attempts, not a hammering.
    assert 1 < len(answerer.requests) < 60


def test_a_repetition_that_runs_out_of_time_does_not_hide_why_there_was_one(answerer: Answerer):
    over = threading.Event()
    answerer.fails(
        grpc.StatusCode.UNAVAILABLE, "stale", error_details_pb2.ErrorInfo(reason="FACTS_STALE")
    )
    first = answerer.answer

    def answer(request, context):
        if len(answerer.requests) > 1:
            over.wait(20)
        return first(request, context)

    answerer.answer = answer
    try:
        with (
            Guard(answerer.address, deadline_seconds=2) as guard,
            pytest.raises(PdpUnavailable) as raised,
        ):
            guard.check(TOKEN, "course:edit")
    finally:
        over.set()
    assert len(answerer.requests) == 2
    assert (raised.value.code, raised.value.reason) == ("UNAVAILABLE", "FACTS_STALE")


def test_a_silent_pdp_is_given_up_at_the_deadline(answerer: Answerer):
    over = threading.Event()

    def answer(_request, _context):
        over.wait(20)
        return allowed()

    answerer.answer = answer
    try:
        with Guard(answerer.address) as guard:
            started = time.monotonic()
            with pytest.raises(PdpUnavailable) as raised:
                guard.check(TOKEN, "course:edit")
            elapsed = time.monotonic() - started
    finally:
        over.set()
    assert raised.value.code == "DEADLINE_EXCEEDED"
    assert 0.2 < elapsed < 5  # the default is 250 ms; the rest is a slow machine


def test_a_pdp_that_is_not_there_is_unavailable():
    with Guard("127.0.0.1:1", deadline_seconds=0.2) as guard, pytest.raises(PdpUnavailable):
        guard.require(TOKEN, "course:edit")


def test_another_address_answers_when_one_is_down(answerer: Answerer):
    with Guard(f"ipv4:127.0.0.1:1,{answerer.address}", deadline_seconds=10) as guard:
        for _ in range(20):
            assert guard.check(TOKEN, "course:edit").allowed is True


def test_calls_are_spread_over_all_addresses(answerer: Answerer):
    second = Answerer()
    server = serve(second, "127.0.0.1:0")
    try:
        target = f"ipv4:{answerer.address},{second.address}"
        with Guard(target, deadline_seconds=10) as guard:
            deadline = time.monotonic() + 10
            while not (answerer.requests and second.requests):
                assert time.monotonic() < deadline
                guard.check(TOKEN, "course:edit")
    finally:
        server.stop(None).wait()


def test_a_guard_comes_back_when_its_pdp_does():
    one = Answerer()
    server = serve(one, "127.0.0.1:0")
    with Guard(one.address, deadline_seconds=5) as guard:
        assert guard.check(TOKEN, "course:edit").allowed is True
        server.stop(None).wait()
        again = serve(one, one.address)
        try:
            assert guard.check(TOKEN, "course:edit").allowed is True
        finally:
            again.stop(None).wait()


@pytest.mark.skipif(sys.platform != "linux", reason="has no other loopback than 127.0.0.1")
def test_a_rollout_that_changes_every_address_behind_a_name_goes_unnoticed():
    """By itself gRPC looks a name up again after 30 s at the earliest. By then a rollout has
    replaced both of two pods, and nobody is left where they were."""
    servers = {}
    with name_server() as names:
        one = Answerer()
        servers["127.0.0.2"] = serve(one, "127.0.0.2:0")
        port = int(one.address.rpartition(":")[2])
        servers["127.0.0.3"] = serve(one, f"127.0.0.3:{port}")
        names.addresses = list(servers)
        with Guard(names.target(port), insecure=True, deadline_seconds=10) as guard:
            assert guard.check(TOKEN, "course:edit").allowed is True
            for old, new in (("127.0.0.2", "127.0.0.4"), ("127.0.0.3", "127.0.0.5")):
                names.addresses = [address for address in servers if address != old]
                servers.pop(old).stop(1).wait()
                assert guard.check(TOKEN, "course:edit").allowed is True
                servers[new] = serve(one, f"{new}:{port}")
                names.addresses = list(servers)
        for server in servers.values():
            server.stop(None).wait()


def test_a_closed_guard_answers_nothing(answerer: Answerer):
    with Guard(answerer.address) as guard:
        pass
    with pytest.raises(ValueError, match="closed"):
        guard.check(TOKEN, "course:edit")


def test_a_call_that_is_under_way_when_its_guard_is_closed_is_unavailable(answerer: Answerer):
    answerer.fails(grpc.StatusCode.UNAVAILABLE)
    guard = Guard(answerer.address, deadline_seconds=20)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(guard.check, TOKEN, "course:edit")
        while len(answerer.requests) < 3 and not asked.done():
            time.sleep(0.005)
        guard.close()
        with pytest.raises(PdpUnavailable):
            asked.result(10)


ECHOING_CODES = [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL]


@pytest.mark.parametrize("code", ECHOING_CODES, ids=lambda code: code.name)
@pytest.mark.parametrize("token", [TOKEN, "opaque-session-token-0123456789"])
def test_a_token_that_the_peer_repeats_is_in_no_exception(
    answerer: Answerer, guard: Guard, code: grpc.StatusCode, token: str
):
    violation = error_details_pb2.BadRequest.FieldViolation(field=token, description=token)
    answerer.fails(
        code,
        f"cannot read {token}",
        error_details_pb2.ErrorInfo(reason=token),
        error_details_pb2.BadRequest(field_violations=[violation]),
    )
    with pytest.raises(GuardError) as raised:
        guard.check(token, "course:edit")
    _assert_is_free_of(token, raised.value)
    # A token that was passed in the wrong place is known by its shape.
    answerer.fails(code, f"permission: {TOKEN} is not type:action")
    with pytest.raises(GuardError) as raised:
        guard.check("course:edit", TOKEN)
    _assert_is_free_of(TOKEN, raised.value)


def test_a_token_that_cannot_be_sent_is_in_no_exception(answerer: Answerer, guard: Guard):
    answerer.fails(grpc.StatusCode.INTERNAL)
    secret = "".join(("secret", "-of-", "the-session"))  # not whole in a traceback's source line
    with pytest.raises(GuardError) as raised:
        guard.check(secret + "\ud800", "course:edit")
    _assert_is_free_of(secret, raised.value)


def test_a_token_shows_nothing_of_itself():
    token = Token("secret-of-the-session")
    assert "secret" not in f"{token} {token!r} {[token]} %s" % token
    assert token.reveal() == "secret-of-the-session"


def _assert_is_free_of(secret: str, error: BaseException) -> None:
    assert secret not in "".join(traceback.format_exception(error))
    while error is not None:
        assert secret not in f"{error} {error!r} {vars(error)}"
        error = error.__cause__ or error.__context__


def test_a_status_of_details_that_contradict_it_keeps_its_code(answerer: Answerer, guard: Guard):
    def answer(_request, context):
        other = status(grpc.StatusCode.INVALID_ARGUMENT, "other")
        context.set_trailing_metadata(other.trailing_metadata)
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")

    answerer.answer = answer
    with pytest.raises(PdpRefused) as raised:
        guard.check(TOKEN, "course:edit")
    assert (raised.value.code, raised.value.violations) == ("PERMISSION_DENIED", ())
