"""CallerService: the caller, as authenticated."""

from collections.abc import Sequence

from pdpapi.v1 import caller_service_pb2
from pdpapi.v1.caller_service_pb2 import GetCallerRequest, GetCallerResponse

from pdp.wire.callers import Caller
from pdp.wire.methods import Method, rpc

SERVICE = caller_service_pb2.DESCRIPTOR.services_by_name["CallerService"].full_name
REQUEST_BYTES_MAX = 1024


def caller_methods() -> Sequence[Method]:
    """The method of CallerService."""

    async def get_caller(_: GetCallerRequest, caller: Caller) -> GetCallerResponse:
        return GetCallerResponse(name=caller.name, capabilities=sorted(caller.may))

    return (rpc(SERVICE, "GetCaller", "caller", get_caller, REQUEST_BYTES_MAX),)
