"""Maps errors to gRPC statuses, in a single table.

Each status carries a `google.rpc.ErrorInfo` (reason from `ErrorReason`, domain `pdpapi.v1`).
Malformed fields add a `google.rpc.BadRequest`, errors worth a retry a `RetryInfo`. A bug is
INTERNAL with a request id: the text of an exception never leaves the process.

A status travels in the trailers of a response. grpcio's clients accept 8 KiB of trailers; they
report a longer status as RESOURCE_EXHAUSTED. So every status is bounded here: texts are shortened,
and violations that do not fit are dropped and counted.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence

import grpc
from google.protobuf import any_pb2, message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from pdpapi.v1 import error_reason_pb2 as pb

from pdp import errors

DOMAIN = "pdpapi.v1"
RETRY_AFTER_MILLISECONDS = (50, 200)

MESSAGE_BYTES_MAX = 1024
"""Bound of `grpc-message`, percent-encoded: a character beyond ASCII takes 6 to 12 bytes there."""
STATUS_BYTES_MAX = 4 * 1024
"""Bound of `grpc-status-details-bin`, before base64 makes it a third longer."""
VALUE_BYTES_MAX = 256
"""Bound of a metadata value and of a field's path, in UTF-8."""
DESCRIPTION_BYTES_MAX = 512
_SUFFIX_BYTES_MAX = 32
_COUNT_BYTES_MAX = 64
_FRAME_BYTES = 4
"""Tag and length of a detail in a status."""
_PRINTABLE = frozenset(range(0x20, 0x7F)) - {ord("%")}

_INVALID = grpc.StatusCode.INVALID_ARGUMENT
_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE

STATUSES: Mapping[type[errors.PdpError], tuple[grpc.StatusCode, pb.ErrorReason.ValueType]] = {
    errors.InvalidRequest: (_INVALID, pb.ERROR_REASON_REQUEST_INVALID),
    errors.InvalidPolicy: (_INVALID, pb.ERROR_REASON_POLICY_INVALID),
    errors.LimitExceeded: (_EXHAUSTED, pb.ERROR_REASON_LIMIT_EXCEEDED),
    errors.NotFound: (grpc.StatusCode.NOT_FOUND, pb.ERROR_REASON_NOT_FOUND),
    errors.AlreadyExists: (grpc.StatusCode.ALREADY_EXISTS, pb.ERROR_REASON_ALREADY_EXISTS),
    errors.BrokenReference: (_PRECONDITION, pb.ERROR_REASON_REFERENCE_BROKEN),
    errors.RouteConflict: (_PRECONDITION, pb.ERROR_REASON_ROUTE_CONFLICT),
    errors.FilterUnsupported: (_PRECONDITION, pb.ERROR_REASON_FILTER_UNSUPPORTED),
    errors.RevisionChanged: (grpc.StatusCode.ABORTED, pb.ERROR_REASON_REVISION_CHANGED),
    errors.CallerUnauthenticated: (
        grpc.StatusCode.UNAUTHENTICATED,
        pb.ERROR_REASON_CALLER_UNAUTHENTICATED,
    ),
    errors.CallerNotAllowed: (
        grpc.StatusCode.PERMISSION_DENIED,
        pb.ERROR_REASON_CALLER_NOT_ALLOWED,
    ),
    errors.DatabaseUnavailable: (_UNAVAILABLE, pb.ERROR_REASON_DATABASE_UNAVAILABLE),
    errors.FactsStale: (_UNAVAILABLE, pb.ERROR_REASON_FACTS_STALE),
    errors.RevisionNotReached: (_UNAVAILABLE, pb.ERROR_REASON_REVISION_NOT_REACHED),
    errors.KeysUnavailable: (_UNAVAILABLE, pb.ERROR_REASON_KEYS_UNAVAILABLE),
    errors.AuditUnavailable: (_UNAVAILABLE, pb.ERROR_REASON_AUDIT_UNAVAILABLE),
    errors.ShuttingDown: (_UNAVAILABLE, pb.ERROR_REASON_SHUTTING_DOWN),
    errors.UpstreamUnavailable: (_UNAVAILABLE, pb.ERROR_REASON_UPSTREAM_UNAVAILABLE),
    errors.UpstreamRefused: (_UNAVAILABLE, pb.ERROR_REASON_UPSTREAM_REFUSED),
    errors.DeadlineExceeded: (grpc.StatusCode.DEADLINE_EXCEEDED, pb.ERROR_REASON_DEADLINE_EXCEEDED),
    errors.Overloaded: (_EXHAUSTED, pb.ERROR_REASON_OVERLOADED),
    errors.ShareExceeded: (_EXHAUSTED, pb.ERROR_REASON_SHARE_EXCEEDED),
}


class PassedOn(Exception):
    """A status that another server sent to this process, which forwards it unchanged."""

    def __init__(self, code: grpc.StatusCode, status: status_pb2.Status) -> None:
        super().__init__(code.name)
        self.code = code
        self.status = status


def status_of(error: errors.PdpError) -> tuple[grpc.StatusCode, status_pb2.Status]:
    """The status of a typed error. Raises KeyError if the table lacks its type."""
    code, reason = STATUSES[type(error)]
    details: list[message.Message] = [_error_info(reason, error.metadata)]
    text = error.message
    if isinstance(error, errors.InvalidRequest | errors.InvalidPolicy):
        details.append(
            _bad_request(
                (found.field, found.description)
                if found.line is None
                else (found.field, f"line {found.line}: {found.description}")
                for found in error.violations
            )
        )
        text = _joined(error.violations)
    if isinstance(error, errors.Unavailable | errors.Overloaded | errors.ShareExceeded):
        retry = error_details_pb2.RetryInfo()
        # Random, so that clients that failed together do not retry together.
        milliseconds = random.randint(*RETRY_AFTER_MILLISECONDS)  # noqa: S311  # no secret
        if isinstance(error, errors.ShareExceeded):
            milliseconds += error.retry_after_ms
        retry.retry_delay.FromMilliseconds(milliseconds)
        details.append(retry)
    return code, _status(code, text, details)


def bounded(status: status_pb2.Status) -> status_pb2.Status:
    """Shortens a status of another server, so that it can be forwarded."""
    details: list[message.Message] = []
    for packed in status.details:
        info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if packed.Unpack(info):
            values = _values(info.metadata)
            info.metadata.clear()
            info.metadata.update(values)
            details.append(info)
        elif packed.Unpack(bad_request):
            found = [
                (violation.field, violation.description)
                for violation in bad_request.field_violations
            ]
            details.append(_bad_request(found))
        else:
            details.append(packed)
    return _status(status.code, status.message, details)


def bug_status(request_id: str) -> tuple[grpc.StatusCode, status_pb2.Status]:
    """The status of an exception that is not a typed error."""
    info = _error_info(pb.ERROR_REASON_INTERNAL, {"request_id": request_id})
    code = grpc.StatusCode.INTERNAL
    return code, _status(code, f"internal error; request {request_id}", [info])


def _error_info(
    reason: pb.ErrorReason.ValueType, metadata: Mapping[str, str]
) -> error_details_pb2.ErrorInfo:
    name = pb.ErrorReason.Name(reason).removeprefix("ERROR_REASON_")
    return error_details_pb2.ErrorInfo(reason=name, domain=DOMAIN, metadata=_values(metadata))


def _bad_request(violations: Iterable[tuple[str, str]]) -> error_details_pb2.BadRequest:
    """A BadRequest of (field, description) pairs."""
    return error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(
                field=_shortened(field, VALUE_BYTES_MAX),
                description=_shortened(description, DESCRIPTION_BYTES_MAX),
            )
            for field, description in violations
        ]
    )


def _status(
    code: grpc.StatusCode | int, text: str, details: Sequence[message.Message]
) -> status_pb2.Status:
    """A status within its bounds. Drops violations that do not fit, and writes their number as
    `violations_left_out` into the metadata of ErrorInfo."""
    status = status_pb2.Status(
        code=code if isinstance(code, int) else code_pb2.Code.Value(code.name),
        message=_shortened(text, MESSAGE_BYTES_MAX, _percent_encoded_bytes),
    )
    room = STATUS_BYTES_MAX - status.ByteSize() - _COUNT_BYTES_MAX
    others = (detail for detail in details if not isinstance(detail, error_details_pb2.BadRequest))
    room -= sum(map(_size, others))
    left_out = 0
    for detail in details:
        if isinstance(detail, error_details_pb2.BadRequest):
            while detail.field_violations and _size(detail) > room:
                del detail.field_violations[-1]
                left_out += 1
    for detail in details:
        if left_out and isinstance(detail, error_details_pb2.ErrorInfo):
            detail.metadata["violations_left_out"] = str(left_out)
        packed = _packed(detail)
        if status.ByteSize() + packed.ByteSize() + _FRAME_BYTES <= STATUS_BYTES_MAX:
            status.details.append(packed)
    return status


def _packed(detail: message.Message) -> any_pb2.Any:
    if isinstance(detail, any_pb2.Any):
        return detail
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def _size(detail: message.Message) -> int:
    return _packed(detail).ByteSize() + _FRAME_BYTES


# --- texts ----------------------------------------------------------------------------------------


def _values(metadata: Mapping[str, str]) -> dict[str, str]:
    return {name: _shortened(value, VALUE_BYTES_MAX) for name, value in metadata.items()}


def _joined(violations: Sequence[errors.Violation]) -> str:
    """As many violations as fit into a message, and the number of the others."""
    sentences: list[str] = []
    room = MESSAGE_BYTES_MAX - _SUFFIX_BYTES_MAX
    for violation in violations:
        sentence = _shortened(str(violation), MESSAGE_BYTES_MAX // 2, _percent_encoded_bytes)
        room -= _percent_encoded_bytes(sentence.encode()) + len("; ")
        if room < 0:
            break
        sentences.append(sentence)
    more = len(violations) - len(sentences)
    return "; ".join([*sentences, f"and {more} more"] if more else sentences)


def _shortened(text: str, bytes_max: int, cost: Callable[[bytes], int] = len) -> str:
    """Shortens a text that costs more than `bytes_max`, and appends how many bytes are missing.
    Escapes lone surrogates, which protocol buffers cannot hold."""
    content = text.encode("utf-8", "backslashreplace")
    # A text longer than the bound costs more than the bound, so the cost of long texts is not
    # computed.
    if len(content) <= bytes_max and cost(content) <= bytes_max:
        return content.decode()
    room = bytes_max - _SUFFIX_BYTES_MAX
    length = 0
    while (room := room - cost(content[length : length + 1])) >= 0:
        length += 1
    beginning = content[:length].decode("utf-8", "ignore")
    return f"{beginning}... ({len(content) - len(beginning.encode())} more bytes)"


def _percent_encoded_bytes(content: bytes) -> int:
    """The length of the content in `grpc-message`.

    Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
    """
    return sum(1 if byte in _PRINTABLE else 3 for byte in content)
