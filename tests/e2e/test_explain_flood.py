"""Explanations cost far more than Checks: a flood of them must not keep Checks from an answer."""

import json
import threading
from collections import Counter
from pathlib import Path

import grpc
from pdpapi.v1.core_pb2 import DECISION_ALLOW, Resource
from pdpapi.v1.decision_service_pb2 import CheckRequest
from pdpapi.v1.explain_service_pb2 import ExplainRequest, NamedActor
from pdpapi.v1.explain_service_pb2_grpc import ExplainServiceStub

from tests.kit.server import ServerProcess, running_server, token_of
from tests.kit.waiting import eventually

RULES = 150
POLICY = json.dumps(
    {
        "permissions": ["course:edit", "course:view"],
        "roles": {
            "EDITOR": {
                "allow": [
                    "course:view",
                    *(
                        {
                            "permission": "course:edit",
                            "when": f"resource.attributes.a{i} == 'x' && context.b{i} == 'y'",
                        }
                        for i in range(RULES)
                    ),
                ]
            }
        },
        "grants": [{"role": "EDITOR", "user": "user_1"}],
        "users": [{"id": "user_1"}],
        "organizations": [{"id": "org_1"}],
        "memberships": [{"organization": "org_1", "user": "user_1", "role": "org:member"}],
        "resources": [{"type": "course", "id": "1", "organization": "org_1"}],
    }
)
COURSE = Resource(type="course", id="1")
FLOOD = 40
"""Explanations at once: more than there are places for requests with one thread."""
UNBOUNDED = """
import pdp.wire.services.explain as explain
explain.EXPLANATIONS_SHARE = explain.EXPLANATIONS_MAX = 10_000
"""


def test_checks_of_a_bystander_are_answered_beside_a_flood_of_explanations(tmp_path: Path) -> None:
    explained, checked = flooded(tmp_path)
    assert explained["cut"], "each explanation takes as long as the bounds allow"
    assert explained[grpc.StatusCode.RESOURCE_EXHAUSTED], "the flood is larger than its share"
    assert checked == {DECISION_ALLOW: CHECKS}


def test_without_a_share_of_explanations_the_same_flood_takes_every_place(tmp_path: Path) -> None:
    """Positive control."""
    _, checked = flooded(tmp_path, UNBOUNDED)
    assert checked[grpc.StatusCode.RESOURCE_EXHAUSTED]


CHECKS = 10


def flooded(directory: Path, before: str = "") -> tuple[Counter[object], Counter[object]]:
    """Outcomes of explanations, and of Checks beside them."""
    explained: Counter[object] = Counter()
    checked: Counter[object] = Counter()
    stop = threading.Event()

    def explain(server: ServerProcess) -> None:
        actor = NamedActor(user_id="user_1", organization_id="org_1")
        request = ExplainRequest(actor=actor, permission="course:edit", resource=COURSE)
        with server.channel() as channel:
            while not stop.is_set():
                try:
                    answer = ExplainServiceStub(channel).Explain(request, timeout=60)
                    explained["cut" if answer.search_was_cut else "whole"] += 1
                except grpc.RpcError as error:
                    explained[error.code()] += 1
                    stop.wait(0.2)

    with running_server(directory, POLICY, before=before, THREADS="1") as (server, stubs):
        threads = [threading.Thread(target=explain, args=(server,)) for _ in range(FLOOD)]
        try:
            for thread in threads:
                thread.start()
            eventually(lambda: explained["cut"] > 0, seconds=60)
            for _ in range(CHECKS):
                request = CheckRequest(
                    actor_token=token_of("user_1", organization_id="org_1"),
                    permission="course:view",
                    resource=COURSE,
                )
                try:
                    checked[stubs.decision.Check(request, timeout=30).decision] += 1
                except grpc.RpcError as error:
                    checked[error.code()] += 1
                    break  # that is all it takes
        finally:
            stop.set()
            server.kill()  # it need not answer what waits
            for thread in threads:
                thread.join(60)
    return explained, checked
