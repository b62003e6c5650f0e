"""Room 1, the wire: gRPC and Connect in and out.

In: HTTP requests (ASGI). Out: responses with an answer, or with a status of one table.
The only room that knows grpc and the generated code; it parses and checks requests once, so that
no room behind it has to. It decides nothing and reads no database.
"""

from pdp.wire.access_queries import access_query_methods
from pdp.wire.administration import administration_methods
from pdp.wire.application import Application, Receive, Scope, Send
from pdp.wire.audit import audit_methods
from pdp.wire.callers import Callers
from pdp.wire.changes import Watchers
from pdp.wire.decision import decision_methods
from pdp.wire.external_authorization import external_authorization_methods
from pdp.wire.health import Health
from pdp.wire.methods import AnyMethod
from pdp.wire.pages import Pages
from pdp.wire.reflection import reflection_methods
from pdp.wire.shares import Rate

__all__ = [
    "AnyMethod",
    "Application",
    "Callers",
    "Health",
    "Pages",
    "Rate",
    "Receive",
    "Scope",
    "Send",
    "Watchers",
    "access_query_methods",
    "administration_methods",
    "audit_methods",
    "decision_methods",
    "external_authorization_methods",
    "reflection_methods",
]
