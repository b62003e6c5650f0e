"""ReviewService: findings about grants and decisions, and what a user may do."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from google.protobuf.message import Message
from pdpapi.v1 import review_service_pb2 as pb

from pdp import names
from pdp.audit import Coverage, FindingPage, Findings, Missing, Window
from pdp.clock import Clock
from pdp.concurrency.waiting import in_pool
from pdp.errors import InvalidRequest, Violation
from pdp.limits import MESSAGE_BYTES_MAX
from pdp.reviews import (
    GrantFindingPage,
    GrantReviews,
    Row,
    UserAccess,
    UserAccessQueries,
)
from pdp.wire.callers import Caller
from pdp.wire.convert import entities
from pdp.wire.convert.pages import Pages, page_size
from pdp.wire.convert.times import seconds_of, set_duration, set_time
from pdp.wire.methods import Method, blocking, rpc
from pdp.wire.services.access_queries import path_message, write_refusal
from pdp.wire.services.audit import record_message
from pdp.wire.services.decision import CHECK_BYTES_MAX

SERVICE = pb.DESCRIPTOR.services_by_name["ReviewService"].full_name
PAGE_BYTES_MAX = MESSAGE_BYTES_MAX // 2
DAYS_MAX = 3_650
UNCOVERED_MAX = 100

_REASONS = {
    reason: pb.UncoveredReason.Value(f"UNCOVERED_REASON_{reason.name}") for reason in Missing
}

T = TypeVar("T")
M = TypeVar("M", bound=Message)
Key = Sequence[str]


def review_methods(
    grants: GrantReviews,
    findings: Findings,
    access: UserAccessQueries,
    pages: Pages,
    pool: ThreadPoolExecutor,
    *,
    clock: Clock,
) -> Sequence[Method]:
    """The methods of ReviewService that list. What reads SQL blocks in threads of `pool`."""

    def list_grants(
        request: pb.ListGrantFindingsRequest, _: Caller
    ) -> pb.ListGrantFindingsResponse:
        size, after = page_size(request), pages.after(request) or ()
        page = _grant_page(grants, request, after, size)
        response = pb.ListGrantFindingsResponse()
        messages = []
        for finding in page.findings:
            message = pb.GrantFinding(grant=entities.grant_message(finding.grant))
            if finding.last_used_at is not None:
                set_time(message.last_used_at, finding.last_used_at)
            messages.append((message, finding.after))
        next_key = fill(response.findings, messages, page.after)
        if next_key:
            response.next_page_token = pages.token(request, next_key)
        if page.coverage is not None:
            _write_coverage(response.coverage, page.coverage)
        return response

    def list_decisions(
        request: pb.ListDecisionFindingsRequest, _: Caller
    ) -> pb.ListDecisionFindingsResponse:
        size = page_size(request)
        if not request.HasField("not_before"):
            raise InvalidRequest(Violation("not_before", "must be set"))
        # Nothing was decided before 1970.
        since, now = max(0.0, seconds_of(request.not_before, "not_before")), clock()
        until = seconds_of(request.before, "before") if request.HasField("before") else now
        # All pages end at the time of the first.
        text, after = pages.after(request) or (repr(until), "")
        window = Window(since, float(text))
        page = _decision_page(findings, request.kind, window, after, size)
        response = pb.ListDecisionFindingsResponse()
        messages = []
        for finding in page.findings:
            message = pb.DecisionFinding(decision=record_message(finding.decision))
            if finding.denied_before is not None:
                message.denied_before.CopyFrom(record_message(finding.denied_before))
            messages.append((message, (text, finding.key)))
        end = () if page.after is None else (text, page.after)
        next_key = fill(response.findings, messages, end)
        if next_key:
            response.next_page_token = pages.token(request, next_key)
        _write_coverage(response.coverage, findings.coverage(max(0.0, now - since), now))
        return response

    async def list_access(
        request: pb.ListUserAccessRequest, caller: Caller
    ) -> pb.ListUserAccessResponse:
        wrong = names.check_identifier(request.user_id, "user_id")
        if wrong is not None:
            raise InvalidRequest(wrong)
        size = page_size(request)
        after = await in_pool(pool, lambda: pages.after(request))
        page = await access.of_user(
            request.user_id, caller.name, size=size, after=None if after is None else Row(*after)
        )
        response = pb.ListUserAccessResponse(
            query_id=page.query_id, revision=page.revision, epoch=page.epoch
        )
        if page.refusal is not None:
            write_refusal(response.refusal, page.refusal)
        messages = [(_access_message(access), access.row) for access in page.access]
        next_key = fill(response.access, messages, page.after or ())
        if next_key:
            response.next_page_token = await in_pool(pool, lambda: pages.token(request, next_key))
        return response

    return (
        rpc(SERVICE, "ListUserAccess", "audit", list_access, CHECK_BYTES_MAX),
        rpc(SERVICE, "ListGrantFindings", "audit", blocking(pool, list_grants), CHECK_BYTES_MAX),
        rpc(
            SERVICE,
            "ListDecisionFindings",
            "audit",
            blocking(pool, list_decisions),
            CHECK_BYTES_MAX,
        ),
    )


def fill(field: Any, messages: Iterable[tuple[Message, Key]], after: Key) -> Key:
    """Appends messages, each with the key after it, while there is room for a response.

    Returns:
        The key of the next page: `after` if all messages were appended.
    """
    room = PAGE_BYTES_MAX
    last: Key = ()
    for message, key in messages:
        room -= message.ByteSize()
        if room < 0 and len(field):
            return last
        field.append(message)
        last = key
    return after


def _grant_page(
    grants: GrantReviews, request: pb.ListGrantFindingsRequest, after: Key, size: int
) -> GrantFindingPage:
    kind, days = request.kind, request.days
    has_days = kind in (pb.GRANT_FINDING_KIND_UNUSED, pb.GRANT_FINDING_KIND_ENDING)
    if has_days and not 1 <= days <= DAYS_MAX:
        raise InvalidRequest(Violation("days", f"must be 1 to {DAYS_MAX}, is {days}"))
    match kind:
        case pb.GRANT_FINDING_KIND_UNUSED:
            return grants.unused(days, after, size)
        case pb.GRANT_FINDING_KIND_ENDING:
            return grants.ending(days, after, size)
        case pb.GRANT_FINDING_KIND_CROSS_TENANT:
            return grants.cross_tenant(after, size)
        case pb.GRANT_FINDING_KIND_DISABLED_USER:
            return grants.of_disabled_users(after, size)
    raise InvalidRequest(Violation("kind", f"{kind} is not a list of grants"))


def _decision_page(
    findings: Findings, kind: int, window: Window, after: str, size: int
) -> FindingPage:
    match kind:
        case pb.DECISION_FINDING_KIND_IMPERSONATED:
            return findings.impersonated(window, after, size)
        case pb.DECISION_FINDING_KIND_GRANTED_AFTER_DENIAL:
            return findings.granted_after_denial(window, after, size)
        case pb.DECISION_FINDING_KIND_FIRST_ACCESS:
            return findings.first_accesses(window, after, size)
    raise InvalidRequest(Violation("kind", f"{kind} is not a list of decisions"))


def _access_message(access: UserAccess) -> pb.UserAccess:
    row = access.row
    message = pb.UserAccess(
        organization_id=row.organization_id,
        permission=row.permission,
        allowed_by=map(path_message, access.paths.allowed_by),
        denied_by=map(path_message, access.paths.denied_by),
    )
    if row.resource_type:
        message.resource.type, message.resource.id = row.resource_type, row.resource_id
    return message


def _write_coverage(message: pb.LogCoverage, coverage: Coverage) -> None:
    set_time(message.since, coverage.since)
    set_time(message.until, coverage.until)
    set_duration(message.covered, coverage.covered_seconds)
    for part in coverage.uncovered[:UNCOVERED_MAX]:
        time = message.uncovered.add(reason=_REASONS[part.why])
        set_time(time.since, part.since)
        set_time(time.until, part.until)
    message.uncovered_left_out = max(0, len(coverage.uncovered) - UNCOVERED_MAX)
