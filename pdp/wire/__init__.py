"""Room 1: the wire, which serves gRPC and Connect.

In:  HTTP requests (ASGI).
Out: responses with an answer, or with a status of the table in `statuses`.

The only room that knows grpc and the generated code. It parses and checks each request once, so no
other room has to. It decides nothing and reads no database.
"""

from pdp.wire.application import Application, Receive, Scope, Send
from pdp.wire.callers import Callers
from pdp.wire.convert.pages import Pages
from pdp.wire.methods import AnyMethod
from pdp.wire.services.access_queries import access_query_methods
from pdp.wire.services.administration import administration_methods
from pdp.wire.services.audit import audit_methods
from pdp.wire.services.callers import caller_methods
from pdp.wire.services.campaigns import campaign_methods
from pdp.wire.services.changes import Watchers
from pdp.wire.services.decision import decision_methods
from pdp.wire.services.explain import explain_methods
from pdp.wire.services.external_authorization import external_authorization_methods
from pdp.wire.services.health import Health
from pdp.wire.services.reflection import reflection_methods
from pdp.wire.services.reviews import review_methods
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
    "caller_methods",
    "campaign_methods",
    "decision_methods",
    "explain_methods",
    "external_authorization_methods",
    "reflection_methods",
    "review_methods",
]
