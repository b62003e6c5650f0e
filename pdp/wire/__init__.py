"""Room 1, the wire: gRPC in, gRPC out.

In: raw bytes and the connection's metadata. Out: raw bytes, or a status of one table.
The only room that knows grpc and the generated code; it parses and checks requests once, so that
no room behind it has to. It decides nothing and reads no database.
"""

from pdp.wire.administration import administration_methods
from pdp.wire.asgi import AsgiDoor, Receive, Scope, Send
from pdp.wire.audit import audit_methods
from pdp.wire.changes import Watchers
from pdp.wire.decision import decision_methods
from pdp.wire.door import Door
from pdp.wire.external_authorization import external_authorization_methods
from pdp.wire.methods import AnyMethod
from pdp.wire.pages import Pages
from pdp.wire.server import open_grpc_door
from pdp.wire.shares import Rate

__all__ = [
    "AnyMethod",
    "AsgiDoor",
    "Door",
    "Pages",
    "Rate",
    "Receive",
    "Scope",
    "Send",
    "Watchers",
    "administration_methods",
    "audit_methods",
    "decision_methods",
    "external_authorization_methods",
    "open_grpc_door",
]
