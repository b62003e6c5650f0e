"""Finds the question of an HTTP request by the routes of a policy."""

from typing import Final, NamedTuple

from pdp_routes import PUBLIC, RouteRefused

from pdp import names
from pdp.decision.policy import Policy
from pdp.model import HttpRequest, Question, Reason, Resource

UNROUTED: Final = "http:request"
"""The permission that the audit log names for a request without a route."""


class Target(NamedTuple):
    """The question of a request."""

    question: Question
    refusal: Reason | None
    """Why the request is refused; the question then only describes it in the audit log."""


def target_of(policy: Policy, request: HttpRequest) -> Target | None:
    """The question that the policy's routes assign to a request; None: its route is public."""
    try:
        found = policy.routes.match(request.method, request.path)
    except RouteRefused as refused:
        unknown = refused.reason == "no_route"
        reason = Reason.ROUTE_UNKNOWN if unknown else Reason.PATH_AMBIGUOUS
        return Target(Question(UNROUTED), reason)
    if found is PUBLIC:
        return None
    resource = None
    if found.resource_type is not None and found.resource_id is not None:
        if names.check_identifier(found.resource_id, "") is not None:
            # No resource can have such an id. Any client can send it, so it is not an error.
            return Target(Question(UNROUTED), Reason.ROUTE_UNKNOWN)
        resource = Resource(found.resource_type, found.resource_id)
    return Target(Question(found.permission, resource, request.context), None)
