"""A real server whose wall clock is stepped: what has expired stays expired."""

import time
from collections.abc import Iterator

import pytest
from pdpapi.v1.administration_service_pb2 import ApplyRequest
from pdpapi.v1.core_pb2 import DecisionReason
from pdpapi.v1.decision_service_pb2 import CheckRequest

from tests.kit.server import ServerProcess, Stubs, stubs_on, token_of
from tests.kit.sidecar import metric
from tests.kit.waiting import eventually


class SteppedServer(ServerProcess):
    """Its wall clock may be stepped while it runs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._offset = self.directory / "offset"
        self.step_to(0)
        self.before = f"from tests.kit.stepped_clock import follow; follow({str(self._offset)!r})"

    def step_to(self, seconds: float) -> None:
        """Ahead of the real time."""
        new = self._offset.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._offset)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SteppedServer]:
    directory = tmp_path_factory.mktemp("server")
    server = SteppedServer(directory, {"CLOCK_SKEW_SECONDS": "0"})
    server.start()
    yield server
    server.stop()


def reason(stubs: Stubs, token: str) -> str:
    request = CheckRequest(actor_token=token, permission="course:view")
    answer = stubs.decision.Check(request, timeout=10)
    return DecisionReason.Name(answer.reason).removeprefix("DECISION_REASON_")


def test_a_token_and_a_grant_that_have_expired_stay_so_when_the_clock_goes_back(
    server: SteppedServer,
) -> None:
    steps = metric(server, "pdp_clock_steps")
    now = int(time.time())
    ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + 600))
    policy = f"""
permissions: [course:view]
roles: {{STUDENT: {{allow: [course:view]}}}}
users: [{{id: user_1}}, {{id: user_2}}]
grants:
  - {{role: STUDENT, user: user_1}}
  - {{role: STUDENT, user: user_2, expires_at: "{ends}"}}
"""
    short = token_of("user_1", claims={"iat": now, "nbf": now, "exp": now + 600})
    long = token_of("user_2", claims={"iat": now, "nbf": now, "exp": now + 3000})
    with server.channel() as channel:
        stubs = stubs_on(channel)
        stubs.administration.Apply(ApplyRequest(document=policy), timeout=10)
        assert (reason(stubs, short), reason(stubs, long)) == ("ALLOWED_BY_RULE",) * 2
        server.step_to(605)
        over = ("TOKEN_EXPIRED", "PERMISSION_NOT_GRANTED")
        assert (reason(stubs, short), reason(stubs, long)) == over
        server.step_to(605 - 14)  # by the wall clock both would hold again
        assert (reason(stubs, short), reason(stubs, long)) == over
        eventually(lambda: metric(server, "pdp_clock_steps") == steps + 2)
        assert 13 < metric(server, "pdp_clock_ahead_seconds") <= 14
        # A step forward was taken back: the process says so, and asks to be restarted.
        eventually(lambda: server.http("/readyz")[0] == 503)
        assert "restart this process" in server.http("/readyz")[1]
        assert server.http("/healthz")[0] == 200
    assert "went forward and then back" in server.log()
    server.stop()
    server.step_to(0)
    server.start()  # after which the wall clock holds
    with server.channel() as channel:
        assert reason(stubs_on(channel), long) == "ALLOWED_BY_RULE"


def test_a_step_back_alone_leaves_the_server_ready(server: SteppedServer) -> None:
    steps = metric(server, "pdp_clock_steps")
    server.step_to(-14)
    eventually(lambda: metric(server, "pdp_clock_steps") == steps + 1)
    assert server.http("/readyz")[0] == 200
    server.step_to(0)
    eventually(lambda: metric(server, "pdp_clock_ahead_seconds") == 0)
