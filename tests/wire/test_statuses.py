"""Every error has its status, and no text of a bug gets out."""

import re
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from pdpapi.v1.error_reason_pb2 import ErrorReason

from pdp import errors
from pdp.wire.framing import status_headers
from pdp.wire.pipeline import Refusal
from pdp.wire.statuses import STATUSES, bounded, bug_status, status_of


def leaves(error: type[errors.PdpError]) -> set[type[errors.PdpError]]:
    below = error.__subclasses__()
    return {error} if not below else {leaf for child in below for leaf in leaves(child)}


EXAMPLES: dict[type[errors.PdpError], errors.PdpError] = {
    errors.InvalidRequest: errors.InvalidRequest(errors.Violation("permission", "is empty")),
    errors.InvalidPolicy: errors.InvalidPolicy(errors.Violation("roles.A", "is odd", line=3)),
    errors.LimitExceeded: errors.LimitExceeded("batch_items_max", 1000, 1001),
    errors.Overloaded: errors.Overloaded("concurrent_rpcs_max", 1024),
    errors.ShareExceeded: errors.ShareExceeded("streams_share", 64, 3_000),
    errors.RevisionChanged: errors.RevisionChanged(11, 12),
    errors.FilterUnsupported: errors.FilterUnsupported([("rule", "matches", 1, 20)]),
    errors.NotFound: errors.NotFound("role", "ADMIN"),
    errors.AlreadyExists: errors.AlreadyExists("role", "ADMIN"),
    errors.RouteConflict: errors.RouteConflict("/a/{x}", "/{y}/b", "could take the same path"),
    errors.BrokenReference: errors.BrokenReference("is granted", "role", "ADMIN"),
    errors.CallerNotAllowed: errors.CallerNotAllowed("no", method="/a/B", capability="administer"),
    errors.FactsStale: errors.FactsStale("stale", age_seconds=5.1, bound_seconds=5),
    errors.RevisionNotReached: errors.RevisionNotReached("not yet", wanted=12, seen=11),
}
CONTRACT = Path(__file__).parents[2] / "proto" / "pdpapi" / "v1" / "error_reason.proto"


def example(error: type[errors.PdpError]) -> errors.PdpError:
    return EXAMPLES.get(error) or error("as it is")


def test_the_table_names_every_error_of_the_tree_and_nothing_else() -> None:
    without = leaves(errors.ClerkError) | leaves(errors.ForwardingError)
    assert set(STATUSES) == leaves(errors.PdpError) - without


def test_no_two_errors_share_a_reason() -> None:
    reasons = [reason for _, reason in STATUSES.values()]
    assert len(set(reasons)) == len(reasons)
    known = {*reasons, ErrorReason.ERROR_REASON_UNSPECIFIED, ErrorReason.ERROR_REASON_INTERNAL}
    assert known == set(ErrorReason.values())


@pytest.mark.parametrize("error", sorted(STATUSES, key=lambda e: e.__name__))
def test_every_status_says_its_reason_and_domain(error: type[errors.PdpError]) -> None:
    code, status = status_of(example(error))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "pdpapi.v1"
    assert f"ERROR_REASON_{info.reason}" in ErrorReason.keys()  # noqa: SIM118
    assert code.value[0] == status.code


def worked_examples() -> dict[str, tuple[str, dict[str, str]]]:
    """Reason -> (gRPC code, metadata), as the contract's comments show them."""
    found: dict[str, tuple[str, dict[str, str]]] = {}
    code, example = "", re.compile(r'ErrorInfo\{reason: "(\w+)"(?:, metadata: \{(.*)\})?')
    for line in CONTRACT.read_text().splitlines():
        if (match := re.match(r"  // ([A-Z_]+)\. ", line)) is not None:
            code = match[1]
        if (match := example.search(line)) is not None:
            found[match[1]] = code, dict(re.findall(r'(\w+): "([^"]*)"', match[2] or ""))
    return found


def test_the_contract_shows_an_example_of_every_reason() -> None:
    reasons = {f"ERROR_REASON_{reason}" for reason in worked_examples()}
    assert reasons == set(ErrorReason.keys()) - {"ERROR_REASON_UNSPECIFIED"}


@pytest.mark.parametrize("error", sorted(STATUSES, key=lambda e: e.__name__))
def test_the_examples_of_the_contract_are_what_is_sent(error: type[errors.PdpError]) -> None:
    code, status = status_of(example(error))
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    shown_code, shown = worked_examples()[info.reason]
    assert code.name == shown_code
    assert set(info.metadata) == set(shown)
    for name, value in shown.items():
        assert value in {info.metadata[name], "..."}


def test_the_example_of_a_bug_is_what_is_sent() -> None:
    code, status = bug_status("0190")
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    assert (code.name, set(info.metadata)) == ("INTERNAL", set(worked_examples()["INTERNAL"][1]))


@pytest.mark.parametrize("error", sorted(leaves(errors.Unavailable), key=lambda e: e.__name__))
def test_what_is_unavailable_says_when_to_ask_again(error: type[errors.PdpError]) -> None:
    code, status = status_of(example(error))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert retry_milliseconds(status) > 0


def test_a_herd_is_not_asked_to_come_back_at_one_moment() -> None:
    said = [status_of(example(errors.Overloaded)) for _ in range(99)]
    assert {code for code, _ in said} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert len({retry_milliseconds(status) for _, status in said}) > 9


def test_an_exhausted_share_is_named_with_a_time_to_retry() -> None:
    code, status = status_of(example(errors.ShareExceeded))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert info.reason == "SHARE_EXCEEDED"
    assert info.metadata == {"limit": "streams_share", "maximum": "64"}
    assert 3_050 <= retry_milliseconds(status) <= 3_200


def retry_milliseconds(status: status_pb2.Status) -> int:
    retry = error_details_pb2.RetryInfo()
    assert status.details[-1].Unpack(retry)
    return int(retry.retry_delay.ToMilliseconds())


def test_field_violations_name_the_field_and_the_line() -> None:
    _, status = status_of(EXAMPLES[errors.InvalidPolicy])
    bad = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad)
    assert bad.field_violations[0].field == "roles.A"
    assert bad.field_violations[0].description == "line 3: is odd"


def test_a_bug_says_its_request_id_and_nothing_else() -> None:
    code, status = bug_status("0190")
    assert code is grpc.StatusCode.INTERNAL
    assert status.message == "internal error; request 0190"


LONG = ("x" * 9_000, "\U0001f600" * 9_000, "\x01%" * 9_000, "\ud83d" * 9_000)


def trailer_bytes(status: status_pb2.Status) -> int:
    """The size of a status for a client: `grpc-message` and the details, as HTTP/2 carries them."""
    headers = status_headers(Refusal(grpc.StatusCode.UNKNOWN, status))
    return sum(len(name) + len(value) + 32 for name, value in headers)


@pytest.mark.parametrize("text", LONG, ids=["ascii", "emoji", "percent", "surrogates"])
@pytest.mark.parametrize(
    "error",
    [
        lambda text: errors.InvalidRequest(*[errors.Violation(text, text)] * 100),
        lambda text: errors.InvalidPolicy(*[errors.Violation("roles.A", text, 7)] * 100),
        lambda text: errors.InvalidPolicy(*[errors.Violation(text, "is odd", 7)] * 100),
        lambda text: errors.NotFound(text, text),
        lambda text: errors.AlreadyExists(text, text),
        lambda text: errors.BrokenReference(text, text, text),
        lambda text: errors.RouteConflict(text, text, text),
        lambda text: errors.LimitExceeded(text, 1, 2),
        lambda text: errors.CallerNotAllowed(text, method=text, capability=text),
        errors.KeysUnavailable,
        lambda text: errors.Overloaded(text, 1),
    ],
)
def test_no_status_is_longer_than_a_client_takes(
    error: Callable[[str], errors.PdpError], text: str
) -> None:
    _, status = status_of(error(text))
    assert trailer_bytes(status) < 7 * 1024
    assert status.message
    assert status.details[0].Is(error_details_pb2.ErrorInfo.DESCRIPTOR)
    again = bounded(status)
    assert trailer_bytes(again) < 7 * 1024
    assert len(again.details) == len(status.details)


def test_a_short_message_is_sent_in_full() -> None:
    violations = [errors.Violation(f"roles.A.allow[{n}]", "is odd", n) for n in range(9)]
    _, status = status_of(errors.InvalidPolicy(*violations))
    bad, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
    assert status.details[1].Unpack(bad)
    assert len(bad.field_violations) == 9
    assert status.details[0].Unpack(info)
    assert not info.metadata
    assert status.message == "; ".join(map(str, violations))
    assert bounded(status) == status


def test_a_long_status_of_another_server_is_passed_on_within_bounds() -> None:
    info = error_details_pb2.ErrorInfo(reason="OTHER", domain="x", metadata={"a": "y" * 9_000})
    fields = [error_details_pb2.BadRequest.FieldViolation(field="f", description="d" * 900)] * 20
    status = status_pb2.Status(code=3, message="ä" * 9_000)
    for detail in (info, error_details_pb2.BadRequest(field_violations=fields)):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    passed_on = bounded(status)
    assert trailer_bytes(passed_on) < 7 * 1024
    assert passed_on.code == 3
    read = error_details_pb2.ErrorInfo()
    assert passed_on.details[0].Unpack(read)
    assert (read.reason, read.metadata["violations_left_out"] > "0") == ("OTHER", True)
