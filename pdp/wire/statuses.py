"""Errors -> gRPC statuses: the one table.

Each status carries a `google.rpc.ErrorInfo` (reason from `ErrorReason`, domain `pdpapi.v1`);
malformed fields come as `google.rpc.BadRequest`; what is worth asking again, as `RetryInfo`.
A bug is INTERNAL with a request id: the text of an exception never leaves the process.
"""

import random
from collections.abc import Mapping

import grpc
from google.protobuf import any_pb2, message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from pdpapi.v1.error_reason_pb2 import ErrorReason

from pdp import errors

DOMAIN = "pdpapi.v1"
RETRY_AFTER_MILLISECONDS = (50, 200)

_INVALID = grpc.StatusCode.INVALID_ARGUMENT
_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE

STATUSES: Mapping[type[errors.PdpError], tuple[grpc.StatusCode, ErrorReason.ValueType]] = {
    errors.InvalidRequest: (_INVALID, ErrorReason.ERROR_REASON_REQUEST_INVALID),
    errors.InvalidPolicy: (_INVALID, ErrorReason.ERROR_REASON_POLICY_INVALID),
    errors.LimitExceeded: (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        ErrorReason.ERROR_REASON_LIMIT_EXCEEDED,
    ),
    errors.NotFound: (grpc.StatusCode.NOT_FOUND, ErrorReason.ERROR_REASON_NOT_FOUND),
    errors.AlreadyExists: (
        grpc.StatusCode.ALREADY_EXISTS,
        ErrorReason.ERROR_REASON_ALREADY_EXISTS,
    ),
    errors.BrokenReference: (
        grpc.StatusCode.FAILED_PRECONDITION,
        ErrorReason.ERROR_REASON_REFERENCE_BROKEN,
    ),
    errors.RouteConflict: (
        grpc.StatusCode.FAILED_PRECONDITION,
        ErrorReason.ERROR_REASON_ROUTE_CONFLICT,
    ),
    errors.RevisionChanged: (
        grpc.StatusCode.ABORTED,
        ErrorReason.ERROR_REASON_REVISION_CHANGED,
    ),
    errors.CallerUnauthenticated: (
        grpc.StatusCode.UNAUTHENTICATED,
        ErrorReason.ERROR_REASON_CALLER_UNAUTHENTICATED,
    ),
    errors.CallerNotAllowed: (
        grpc.StatusCode.PERMISSION_DENIED,
        ErrorReason.ERROR_REASON_CALLER_NOT_ALLOWED,
    ),
    errors.DatabaseUnavailable: (_UNAVAILABLE, ErrorReason.ERROR_REASON_DATABASE_UNAVAILABLE),
    errors.FactsStale: (_UNAVAILABLE, ErrorReason.ERROR_REASON_FACTS_STALE),
    errors.RevisionNotReached: (_UNAVAILABLE, ErrorReason.ERROR_REASON_REVISION_NOT_REACHED),
    errors.KeysUnavailable: (_UNAVAILABLE, ErrorReason.ERROR_REASON_KEYS_UNAVAILABLE),
    errors.AuditUnavailable: (_UNAVAILABLE, ErrorReason.ERROR_REASON_AUDIT_UNAVAILABLE),
    errors.ShuttingDown: (_UNAVAILABLE, ErrorReason.ERROR_REASON_SHUTTING_DOWN),
    errors.UpstreamUnavailable: (_UNAVAILABLE, ErrorReason.ERROR_REASON_UPSTREAM_UNAVAILABLE),
    errors.UpstreamRefused: (_UNAVAILABLE, ErrorReason.ERROR_REASON_UPSTREAM_REFUSED),
    errors.Overloaded: (grpc.StatusCode.RESOURCE_EXHAUSTED, ErrorReason.ERROR_REASON_OVERLOADED),
    errors.ShareExceeded: (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        ErrorReason.ERROR_REASON_SHARE_EXCEEDED,
    ),
}


class PassedOn(Exception):
    """A status that a server gave to this process, which gives it on as it is."""

    def __init__(self, code: grpc.StatusCode, status: status_pb2.Status) -> None:
        super().__init__(code.name)
        self.code = code
        self.status = status


def status_of(error: errors.PdpError) -> tuple[grpc.StatusCode, status_pb2.Status]:
    """The status of a typed error. Raises KeyError for a type that the table does not name."""
    code, reason = STATUSES[type(error)]
    details: list[message.Message] = [_error_info(reason, error.metadata)]
    if isinstance(error, errors.InvalidRequest | errors.InvalidPolicy):
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=violation.field,
                        description=violation.description
                        if violation.line is None
                        else f"line {violation.line}: {violation.description}",
                    )
                    for violation in error.violations
                ]
            )
        )
    if isinstance(error, errors.Unavailable | errors.Overloaded | errors.ShareExceeded):
        retry = error_details_pb2.RetryInfo()
        # Apart from each other: a herd that is told one moment comes back as a herd.
        milliseconds = random.randint(*RETRY_AFTER_MILLISECONDS)  # noqa: S311  # no secret
        if isinstance(error, errors.ShareExceeded):
            milliseconds += error.retry_after_ms
        retry.retry_delay.FromMilliseconds(milliseconds)
        details.append(retry)
    return code, _status(code, error.message, details)


def bug_status(request_id: str) -> tuple[grpc.StatusCode, status_pb2.Status]:
    """The status of anything that is not a typed error."""
    info = _error_info(ErrorReason.ERROR_REASON_INTERNAL, {"request_id": request_id})
    code = grpc.StatusCode.INTERNAL
    return code, _status(code, f"internal error; request {request_id}", [info])


def _error_info(
    reason: ErrorReason.ValueType, metadata: Mapping[str, str]
) -> error_details_pb2.ErrorInfo:
    name = ErrorReason.Name(reason).removeprefix("ERROR_REASON_")
    return error_details_pb2.ErrorInfo(reason=name, domain=DOMAIN, metadata=dict(metadata))


def _status(code: grpc.StatusCode, text: str, details: list[message.Message]) -> status_pb2.Status:
    status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message=text)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status
