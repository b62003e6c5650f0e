"""Route maps: what a request needs, by its method and its path. Pure, and without dependencies.

A map assigns a permission to a route, or declares it public. A path that matches no route is
refused, and so is every path that another program could read differently. The rules are those of
docs/guards.md, section Routes, and the same in every language (clients/conformance/routes.json).

The PDP uses it for the `routes` of the policy document, the guard for its own map.
"""

from pdp_routes.patterns import ROUTE_CHARACTERS_MAX, problem_of
from pdp_routes.routes import ROUTES_MAX, Routes
from pdp_routes.values import (
    PUBLIC,
    Asked,
    Needs,
    Problem,
    Public,
    Requirement,
    RouteMapInvalid,
    RouteRefused,
)

__all__ = [
    "PUBLIC",
    "ROUTES_MAX",
    "ROUTE_CHARACTERS_MAX",
    "Asked",
    "Needs",
    "Problem",
    "Public",
    "Requirement",
    "RouteMapInvalid",
    "RouteRefused",
    "Routes",
    "problem_of",
]
