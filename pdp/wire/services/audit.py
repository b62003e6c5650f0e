"""AuditService: lists of the decision log and of changes, and the records of sidecars."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from google.protobuf.timestamp_pb2 import Timestamp
from pdpapi.v1 import audit_service_pb2, core_pb2
from pdpapi.v1.audit_service_pb2 import (
    FollowDecisionsRequest,
    FollowDecisionsResponse,
    GetDecisionRequest,
    GetDecisionResponse,
    ListChangesRequest,
    ListChangesResponse,
    ListDecisionsRequest,
    ListDecisionsResponse,
    ReportDecisionsRequest,
    ReportDecisionsResponse,
)

from pdp.administration_records import AdministrationRecord, Source
from pdp.audit import (
    AdministrationLog,
    AnswerSource,
    ChangeFilter,
    Cursor,
    DecisionFilter,
    DecisionLog,
    DecisionRecord,
    Gap,
    Log,
    Reports,
)
from pdp.errors import InvalidRequest, Violation
from pdp.limits import MESSAGE_BYTES_MAX, REPORT_BYTES_MAX
from pdp.wire.callers import Caller
from pdp.wire.convert import entities
from pdp.wire.convert.attributes import struct_of
from pdp.wire.convert.log_frames import contents_of, place_message, place_of
from pdp.wire.convert.pages import Pages, page_size
from pdp.wire.convert.times import seconds_of, set_time
from pdp.wire.methods import Method, blocking, rpc
from pdp.wire.services.decision import EFFECTS, KINDS, REASONS, write_actor
from pdp.wire.shares import Rate

SERVICE = audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"].full_name

PAGE_BYTES_MAX = MESSAGE_BYTES_MAX // 2

_EFFECT_OF = {value: effect for effect, value in EFFECTS.items()}
_REASON_OF = {value: reason for reason, value in REASONS.items()}
_CHANGE_SOURCES = {
    source: audit_service_pb2.ChangeSource.Value(f"CHANGE_SOURCE_{source.name}")
    for source in Source
}
_CHANGE_SOURCE_OF = {value: source for source, value in _CHANGE_SOURCES.items()}
_SOURCES = {
    AnswerSource.DECIDED: core_pb2.ANSWER_SOURCE_UNSPECIFIED,
    AnswerSource.CACHED: core_pb2.ANSWER_SOURCE_CACHED,
    AnswerSource.STAYED_OPEN: core_pb2.ANSWER_SOURCE_STAYED_OPEN,
}


def audit_methods(
    decision_log: DecisionLog,
    administration_log: AdministrationLog,
    reports: Reports,
    pages: Pages,
    *,
    reported: Rate,
    pool: ThreadPoolExecutor,
) -> Sequence[Method]:
    """The methods of AuditService, which block in threads of `pool`. `reported` limits how many
    records each caller may report."""

    def list_decisions(request: ListDecisionsRequest, _: Caller) -> ListDecisionsResponse:
        after = pages.after(request)
        found = decision_log.list(_filter(request), after[0] if after else None, page_size(request))
        response, key = ListDecisionsResponse(), found.after
        # Reported records may be long. A page that is too long to send would hide all of them.
        room = PAGE_BYTES_MAX
        for index, record in enumerate(found.decisions):
            message = record_message(record)
            room -= message.ByteSize()
            if index and room < 0:
                key = decision_log.key(found.decisions[index - 1])
                break
            response.decisions.append(message)
        if key is not None:
            response.next_page_token = pages.token(request, (key,))
        return response

    def follow(request: FollowDecisionsRequest, _: Caller) -> FollowDecisionsResponse:
        return _follow(decision_log, pages, request)

    def get_decision(request: GetDecisionRequest, _: Caller) -> GetDecisionResponse:
        first, *others = map(record_message, decision_log.get(request.decision_id))
        return GetDecisionResponse(decision=first, others=others)

    def list_changes(request: ListChangesRequest, _: Caller) -> ListChangesResponse:
        size = page_size(request)
        after = pages.after(request)
        place = (int(after[0]), int(after[1])) if after else None
        found = administration_log.list(_change_filter(request), place, size + 1)
        response = ListChangesResponse()
        room = PAGE_BYTES_MAX
        for index, record in enumerate(found):
            message = administration_message(record)
            room -= message.ByteSize()
            if index == size or (index and room < 0):
                last = found[index - 1]
                key = (str(last.revision), str(last.number))
                response.next_page_token = pages.token(request, key)
                break
            response.changes.append(message)
        return response

    def report(request: ReportDecisionsRequest, caller: Caller) -> ReportDecisionsResponse:
        log = Log(request.origin, request.log_id)
        if not request.frames:
            known = reports.place(caller.name, log)
            return ReportDecisionsResponse(place=None if known is None else place_message(known))
        reported.spend(caller.name, len(request.frames))
        start, contents = place_of(request.start), contents_of(request.frames)
        place, refusals = reports.take(caller.name, log, start, contents)
        return ReportDecisionsResponse(
            place=place_message(place),
            refusals=[
                audit_service_pb2.FrameRefusal(position=refusal.position, description=refusal.what)
                for refusal in refusals
            ],
        )

    return (
        rpc(SERVICE, "ListDecisions", "audit", blocking(pool, list_decisions), MESSAGE_BYTES_MAX),
        rpc(SERVICE, "FollowDecisions", "audit", blocking(pool, follow), MESSAGE_BYTES_MAX),
        rpc(SERVICE, "GetDecision", "audit", blocking(pool, get_decision), MESSAGE_BYTES_MAX),
        rpc(SERVICE, "ListChanges", "audit", blocking(pool, list_changes), MESSAGE_BYTES_MAX),
        rpc(SERVICE, "ReportDecisions", "report", blocking(pool, report), REPORT_BYTES_MAX),
    )


def _filter(request: ListDecisionsRequest) -> DecisionFilter:
    if request.decision and request.decision not in _EFFECT_OF:
        raise InvalidRequest(Violation("decision", f"{request.decision} is not a decision"))
    if request.reason and request.reason not in _REASON_OF:
        raise InvalidRequest(Violation("reason", f"{request.reason} is not a reason"))
    return DecisionFilter(
        user_id=request.user_id or None,
        permission=request.permission or None,
        resource_type=request.resource.type or None,
        resource_id=request.resource.id or None,
        effect=_EFFECT_OF[request.decision] if request.decision else None,
        reason=_REASON_OF[request.reason] if request.reason else None,
        organization_id=request.organization_id or None,
        caller=request.caller or None,
        reported_by=request.reported_by or None,
        not_before=_seconds(request, "not_before", request.not_before),
        before=_seconds(request, "before", request.before),
    )


def _change_filter(request: ListChangesRequest) -> ChangeFilter:
    if request.source and request.source not in _CHANGE_SOURCE_OF:
        raise InvalidRequest(Violation("source", f"{request.source} is not a source"))
    if request.key and not request.kind:
        raise InvalidRequest(Violation("key", "needs the kind of the entity"))
    return ChangeFilter(
        kind=request.kind or None,
        key=tuple(request.key) or None,
        name=request.caller or None,
        source=_CHANGE_SOURCE_OF[request.source] if request.source else None,
        not_before=_seconds(request, "not_before", request.not_before),
        before=_seconds(request, "before", request.before),
    )


def _seconds(
    request: ListDecisionsRequest | ListChangesRequest, field: str, value: Timestamp
) -> float | None:
    return seconds_of(value, field) if request.HasField(field) else None  # type: ignore[arg-type]


def _follow(
    decision_log: DecisionLog, pages: Pages, request: FollowDecisionsRequest
) -> FollowDecisionsResponse:
    if request.from_end:
        return FollowDecisionsResponse(cursor=pages.cursor(decision_log.end()))
    cursor = Cursor(*pages.place(request.cursor)) if request.cursor else Cursor()  # type: ignore[arg-type]
    found = decision_log.follow(
        _filter(request.query),
        cursor,
        page_size(request.query),
        with_changes_and_gaps=request.with_changes_and_gaps,
    )
    response = FollowDecisionsResponse(more=found.more)
    end, room = found.cursor, PAGE_BYTES_MAX
    for index, (record, after) in enumerate(found.records):
        message = _followed_message(record)
        room -= message.ByteSize()
        if index and room < 0:
            end, response.more = found.records[index - 1][1], True
            break
        message.cursor = pages.cursor(after)
        response.decisions.append(message)
    response.cursor = pages.cursor(end)
    if request.count_waiting:
        response.waiting = decision_log.waiting(end)
    return response


def _followed_message(
    record: DecisionRecord | AdministrationRecord | Gap,
) -> audit_service_pb2.FollowedDecision:
    message = audit_service_pb2.FollowedDecision()
    if isinstance(record, Gap):
        message.gap.dropped = record.dropped
        set_time(message.gap.noticed_at, record.noticed_at)
    elif isinstance(record, AdministrationRecord):
        message.change.CopyFrom(administration_message(record))
    else:
        message.decision.CopyFrom(record_message(record))
    return message


def record_message(record: DecisionRecord) -> audit_service_pb2.DecisionRecord:
    """Converts a decision record."""
    message = audit_service_pb2.DecisionRecord(
        decision_id=record.decision_id,
        decision=EFFECTS[record.effect],
        denial_kind=KINDS[record.reason.denial_kind],
        reason=REASONS[record.reason],
        permission=record.permission,
        resource=None if record.resource is None else entities.ref_message(record.resource),
        resource_organization_id=record.resource_organization_id or "",
        caller=record.caller,
        rule_id=record.rule_id or "",
        grant_id=record.grant_id or "",
        revision=record.revision,
        token_fingerprint=record.token_fingerprint,
        token_id=record.token_id or "",
        source=_SOURCES[record.source],
        reported_by=record.reported_by or "",
        request=record.request or "",
        query=record.query or "",
        occurrences=record.occurrences,
    )
    if record.actor is not None:
        write_actor(message.actor, record.actor)
    set_time(message.decided_at, record.decided_at)
    if record.last_decided_at is not None:
        set_time(message.last_decided_at, record.last_decided_at)
    if record.erased_at is not None:
        set_time(message.erased_at, record.erased_at)
    return message


def administration_message(record: AdministrationRecord) -> audit_service_pb2.AdministrationRecord:
    """Converts an administration record."""
    message = audit_service_pb2.AdministrationRecord(
        epoch=record.epoch,
        revision=record.revision,
        number=record.number,
        source=_CHANGE_SOURCES[record.source],
        caller=record.name,
        reason=record.reason,
        kind=record.kind,
        key=record.key,
        before=None if record.before is None else struct_of(record.before),
        after=None if record.after is None else struct_of(record.after),
        message_ids=record.messages,
        sync_run=record.sync_run,
    )
    set_time(message.recorded_at, record.recorded_at)
    return message
