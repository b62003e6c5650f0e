"""Denials fold and are refused over gRPC."""

from pathlib import Path

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from pdpapi.v1.audit_service_pb2 import GetDecisionRequest, ListDecisionsRequest
from pdpapi.v1.core_pb2 import Decision
from pdpapi.v1.decision_service_pb2 import BatchCheckRequest, CheckItem, CheckRequest

from tests.kit.school import ALGEBRA, ORGANIZATION, POLICY
from tests.kit.server import running_server, token_of
from tests.kit.sidecar import metric
from tests.kit.waiting import eventually
from tests.kit.wire.errors import error_info, rpc_error


def test_equal_denials_share_a_record_and_floods_that_vary_are_refused(tmp_path: Path) -> None:
    share = {"AUDIT_SHARE_BYTES_PER_SECOND": "1", "AUDIT_SHARE_BURST_BYTES": "20000"}
    token = token_of("user_sam", organization_id=ORGANIZATION)
    request = CheckRequest(actor_token=token, permission="course:edit", resource=ALGEBRA)
    with running_server(tmp_path, POLICY, **share) as (server, stubs):
        ids = {stubs.decision.Check(request, timeout=10).decision_id for _ in range(5)}
        batch = BatchCheckRequest(
            actor_token=token, items=[CheckItem(permission="course:edit", resource=ALGEBRA)] * 5
        )
        ids |= {one.decision_id for one in stubs.decision.BatchCheck(batch, timeout=10).results}
        [decision_id] = ids

        def occurrences() -> list[int]:
            found = stubs.audit.ListDecisions(ListDecisionsRequest(), timeout=10)
            return [one.occurrences for one in found.decisions]

        eventually(lambda: occurrences() == [10], what="all ten are counted at one record")
        wanted = GetDecisionRequest(decision_id=decision_id)
        record = stubs.audit.GetDecision(wanted, timeout=10).decision
        assert record.last_decided_at.ToNanoseconds() > record.decided_at.ToNanoseconds()
        assert metric(server, "pdp_audit_folded_records") == 9

        def flood() -> None:
            for number in range(200):
                asked = CheckRequest()
                asked.CopyFrom(request)
                asked.resource.id = f"course_{number}"
                answer = stubs.decision.Check(asked, timeout=10)
                assert answer.decision == Decision.DECISION_DENY

        error = rpc_error(flood)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        info = error_info(error)
        assert info.reason == "SHARE_EXCEEDED"
        assert info.metadata == {"limit": "audit_share_bytes_per_second", "maximum": "1"}
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
        assert status is not None
        retry = error_details_pb2.RetryInfo()
        assert status.details[-1].Unpack(retry)
        assert retry.retry_delay.ToMilliseconds() > 0
        assert metric(server, "pdp_audit_share_refusals") == 1
        # An allow needs no record.
        asked = CheckRequest(actor_token=token, permission="course:view", resource=ALGEBRA)
        assert stubs.decision.Check(asked, timeout=10).decision == Decision.DECISION_ALLOW
