"""`pdp whoami`: which caller a server takes this command for."""

from pdp.cli.connection import connects
from pdp.cli.output import say
from pdp.cli.profiles import Connection
from pdp.cli.remote import connected, method_of


@connects
def whoami(*, connection: Connection) -> None:
    """Prints the caller that the server sees, its capabilities, and the connection.

    A caller is a backend or a person with an API key or a certificate, not the user of a token:
    `pdp token inspect` explains a token. Exit status: 0 answered, 2 no answer.
    """
    from pdpapi.v1.caller_service_pb2 import GetCallerRequest
    from pdpapi.v1.caller_service_pb2_grpc import CallerServiceStub

    with connected(connection) as channel:
        ask = method_of(CallerServiceStub(channel).GetCaller, connection)
        caller = ask(GetCallerRequest())
    say(f"caller: {caller.name}")
    say(f"capabilities: {', '.join(caller.capabilities)}")
    say(f"server: {connection.server}" + " with TLS" * (connection.tls() is not None))
    if connection.profile is not None:
        say(f"profile: {connection.profile}")
