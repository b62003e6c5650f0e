"""Queries on PostgreSQL: all permissions on the resources of a screen, and the first page of the
resources that an actor may use, out of very many."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from statistics import quantiles

import grpc
from google.protobuf.message import Message
from pdpapi.v1.access_query_service_pb2 import (
    ListAllowedPermissionsRequest,
    ListAllowedPermissionsResponse,
    ListAllowedResourcesRequest,
    ListAllowedResourcesResponse,
)
from pdpapi.v1.core_pb2 import Resource as WireResource

from bench import pdp, plan
from bench.part import Figures, Run
from bench.postgresql import postgresql
from bench.signer import Signer
from pdp.model import (
    Effect,
    Entity,
    Grant,
    InOrganization,
    Membership,
    OnResource,
    Organization,
    Permission,
    Resource,
    ResourceRef,
    Role,
    Rule,
    ToUser,
    User,
)

_PERMISSIONS = "/pdpapi.v1.AccessQueryService/ListAllowedPermissions"
_RESOURCES = "/pdpapi.v1.AccessQueryService/ListAllowedResources"
_ACTIONS = ("archive", "comment", "delete", "edit", "enrol", "export", "share", "view")
SHOWN = 50
"""Resources of a screen, each with as many permissions as there are actions."""
SEEN = 1_000
"""Stored resources that the actor may view: half of them through their organization, half of them
because each is granted to them."""
PAGE = 100
_ORGANIZATIONS = 1_000
"""To which the other resources belong."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Of one query, asked again and again, one at a time. Milliseconds."""

    p50_ms: float
    p99_ms: float


def measure(run: Run) -> Figures:
    """Loads, serves, asks. Takes minutes."""
    stored = run.chosen.resources
    with postgresql() as url:
        started = time.monotonic()
        pdp.fill(url, _entities(stored))
        run.say(f"  {stored:,} resources loaded in {time.monotonic() - started:.0f} s")
        with (
            pdp.serving(run.directory, run.signer, url) as server,
            grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            _read_all(channel, run.signer)
            calls = run.chosen.query_calls
            permissions = _asked(channel, _PERMISSIONS, _screen(run.signer), calls)
            page = _asked(channel, _RESOURCES, _first_page(run.signer), calls)
    run.say(f"  permissions p99 {permissions.p99_ms:.1f} ms, page p99 {page.p99_ms:.1f} ms")
    return {
        "resources": stored,
        "permissions": asdict(permissions),
        "page": asdict(page),
    }


def _entities(stored: int) -> Iterator[Entity]:
    """Those that the actor may see are spread evenly over the others."""
    yield from (Permission(f"{plan.KIND}:{action}") for action in _ACTIONS)
    yield Role(plan.ROLE)
    for action in _ACTIONS:
        owned = "resource.attributes.owner == actor.id" if action == plan.ACTION else ""
        yield Rule(action, plan.ROLE, Effect.ALLOW, f"{plan.KIND}:{action}", owned)
    yield Organization(plan.ORGANIZATION)
    yield User(plan.USER)
    yield Membership(plan.ORGANIZATION, plan.USER, "org:member")
    yield Grant("wide", plan.ROLE, ToUser(plan.USER), InOrganization(plan.ORGANIZATION))
    step = stored // SEEN
    for number in range(0, stored, 2 * step):
        ref = ResourceRef(plan.KIND, _id(number))
        yield Grant(f"grant_{number}", plan.ROLE, ToUser(plan.USER), OnResource(ref))
    attributes = {"owner": plan.STRANGER, "title": "A course with a title of its own"}
    for number in range(stored):
        nth, rest = divmod(number, step)
        organization = plan.ORGANIZATION if nth % 2 else None
        if rest:
            organization = f"org_{number % _ORGANIZATIONS:027}"
        yield Resource(plan.KIND, _id(number), organization, None, attributes)


def _id(number: int) -> str:
    return f"course_{number:027}"


def _screen(signer: Signer) -> ListAllowedPermissionsRequest:
    return ListAllowedPermissionsRequest(
        actor_token=signer.token(plan.USER, plan.ORGANIZATION),
        resources=[
            WireResource(type=plan.KIND, id=_id(number), organization_id=plan.ORGANIZATION)
            for number in range(SHOWN)
        ],
    )


def _first_page(signer: Signer) -> ListAllowedResourcesRequest:
    return ListAllowedResourcesRequest(
        actor_token=signer.token(plan.USER, plan.ORGANIZATION),
        permission=f"{plan.KIND}:view",
        resource_type=plan.KIND,
        page_size=PAGE,
    )


def _read_all(channel: grpc.Channel, signer: Signer) -> None:
    """All pages hold what the actor may see, once. Raises BenchError."""
    ask: pdp.Ask = channel.unary_unary(_RESOURCES)
    request = _first_page(signer)
    found: list[str] = []
    while True:
        answer = ListAllowedResourcesResponse.FromString(
            ask(request.SerializeToString(), timeout=30)
        )
        found += answer.resource_ids
        request.page_token = answer.next_page_token
        if not request.page_token:
            break
        pdp.expect(len(answer.resource_ids) == PAGE, "a page must be full")
    pdp.expect(len(found) == SEEN == len(set(found)), f"{len(found)} resources are listed")
    screen: pdp.Ask = channel.unary_unary(_PERMISSIONS)
    permissions = ListAllowedPermissionsResponse.FromString(
        screen(_screen(signer).SerializeToString(), timeout=30)
    )
    told = {len(result.allowed) + len(result.denied) for result in permissions.results}
    pdp.expect(told == {len(_ACTIONS)}, "every permission must be told")


def _asked(channel: grpc.Channel, path: str, request: Message, calls: int) -> Latency:
    ask: Callable[..., bytes] = channel.unary_unary(path)
    raw = request.SerializeToString()
    took = []
    for _ in range(calls):
        began = time.perf_counter()
        ask(raw, timeout=30)
        took.append((time.perf_counter() - began) * 1_000)
    cuts = quantiles(took, n=100)
    return Latency(cuts[49], cuts[98])
