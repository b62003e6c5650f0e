"""The decision log of a running server, over gRPC: `AuditService.FollowDecisions`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import grpc
from pdp_client.transport import caller_metadata
from pdpapi.v1.audit_service_pb2 import FollowDecisionsRequest, ListDecisionsRequest
from pdpapi.v1.audit_service_pb2_grpc import AuditServiceStub

from pdp.errors import SourceFailed

if TYPE_CHECKING:
    from pdpapi.v1.audit_service_pb2 import FollowDecisionsResponse

SECONDS_MAX: Final = 30.0


class ServerSource:
    """Follows the log of a server. Needs the capability `audit` and no access to the database."""

    def __init__(self, channel: grpc.Channel, api_key: str | None, *, page_records: int) -> None:
        """Creates the source.

        Args:
            channel: To the server.
            api_key: The caller's key.
            page_records: Records of one page, at most 1,000.
        """
        self._follow: Any = AuditServiceStub(channel).FollowDecisions
        self._options = {"timeout": SECONDS_MAX, "metadata": caller_metadata(api_key)}
        self._query = ListDecisionsRequest(page_size=page_records)

    def end(self) -> str:
        """See `Source.end`."""
        try:
            response = self._follow(FollowDecisionsRequest(from_end=True), **self._options)
        except grpc.RpcError as error:
            raise _failure(error) from None
        cursor: str = response.cursor
        return cursor

    def page(self, cursor: str, *, count: bool) -> "Callable[[], FollowDecisionsResponse]":
        """See `Source.page`."""
        request = FollowDecisionsRequest(
            query=self._query, cursor=cursor, with_changes_and_gaps=True, count_waiting=count
        )
        call = self._follow.future(request, **self._options)

        def result() -> "FollowDecisionsResponse":
            try:
                response: FollowDecisionsResponse = call.result()
            except grpc.RpcError as error:
                raise _failure(error) from None
            return response

        return result


def _failure(error: Any) -> SourceFailed:
    return SourceFailed(f"the server answers {error.code().name}: {error.details()}")
