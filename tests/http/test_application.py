"""The HTTP side, asked over a real socket."""

import asyncio
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from pdp.http import WEBHOOK_PATH, bounded_post, http_application
from pdp.http.bounded_post import BODY_BYTES_MAX
from pdp.model import Decision, Effect, Reason
from pdp.process.metrics import Metrics
from tests.kit.wire.listening import listening


@pytest.fixture
def obstacles() -> list[str]:
    return []


@pytest.fixture
def metrics() -> Metrics:
    return Metrics({"pdp_ready": ("1 while the process answers.", lambda: 1.0)})


@pytest.fixture
def port(obstacles: list[str], metrics: Metrics) -> Iterator[int]:
    with listening(http_application(metrics, lambda: list(obstacles))) as port:
        yield port


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def test_a_process_that_is_not_ready_is_alive_and_says_every_obstacle(
    port: int, obstacles: list[str]
) -> None:
    assert get(port, "/readyz") == (200, "ready\n")
    obstacles += ["the database is away", "the disk is full"]
    assert get(port, "/readyz") == (503, "the database is away\nthe disk is full\n")
    assert get(port, "/healthz") == (200, "alive\n")
    obstacles.clear()
    assert get(port, "/readyz")[0] == 200


def test_a_port_is_shared_by_processes_of_one_service_only(metrics: Metrics) -> None:
    """Else another process on the same port would answer half of the probes of a sidecar."""
    application = http_application(metrics, list)
    with listening(application, shared=True) as port:
        address = f"127.0.0.1:{port}"
        taken = pytest.raises(OSError, match=f"{address}: Address already in use")
        with listening(application, address, shared=True), taken, listening(application, address):
            pass


def test_decisions_and_calls_are_counted_by_what_they_were(port: int, metrics: Metrics) -> None:
    denied = Decision(Effect.DENY, Reason.TOKEN_EXPIRED)
    allowed = Decision(Effect.ALLOW, Reason.ALLOWED_BY_RULE)
    metrics.count_decisions([denied])
    metrics.count_decisions([denied, allowed, denied])
    metrics.observe_rpc("Check", "OK", 0.002)
    text = get(port, "/metrics")[1]
    assert 'pdp_decisions_total{effect="deny",reason="TOKEN_EXPIRED"} 3.0' in text
    assert 'pdp_decisions_total{effect="allow",reason="ALLOWED_BY_RULE"} 1.0' in text
    assert 'pdp_rpc_seconds_count{code="OK",method="Check"} 1.0' in text
    assert "pdp_ready 1.0" in text


@pytest.mark.parametrize("path", ["/", "/docs", "/readyz/x", "/metrics/../settings"])
def test_there_is_nothing_else(port: int, path: str) -> None:
    assert get(port, path)[0] == 404


def post(port: int, body: bytes, **headers: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{port}{WEBHOOK_PATH}"
    request = urllib.request.Request(url, body, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("before", [b"", b"GET /healthz HTTP/1.1\r\nHost: pdp\r\n\r\n"])
def test_connections_that_do_not_ask_for_anything_do_not_keep_the_probes_out(
    port: int, before: bytes
) -> None:
    """The same for requests that never end, the first or a later one of a connection."""
    with ExitStack() as opened:
        for number in range(70):
            connection = opened.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(before + b"GET /healthz HTTP/1.1\r\n" * (number % 2))
        assert get(port, "/healthz")[0] == 200


def test_without_a_handler_there_are_no_webhooks(port: int) -> None:
    assert get(port, WEBHOOK_PATH)[0] == 404
    assert post(port, b"{}")[0] == 404


def test_webhooks_are_handed_on_whole_and_what_is_not_is_counted(metrics: Metrics) -> None:
    handed: list[tuple[dict[str, str], bytes]] = []

    class Handler:
        def refusal(self, headers: Sequence[tuple[str, str]]) -> str | None:
            return "not_for_us" if "x-other" in dict(headers) else None

        async def answer(self, headers: Sequence[tuple[str, str]], body: bytes) -> tuple[int, str]:
            handed.append((dict(headers), body))
            return 202, "taken"

    application = http_application(metrics, list, Handler())
    with listening(application, policies=[(WEBHOOK_PATH, BODY_BYTES_MAX)]) as port:
        body = b"\xff" * 300_000
        assert post(port, body, **{"X-One": "1"}) == (202, "taken\n")
        assert [(one["x-one"], it) for one, it in handed] == [("1", body)]
        assert post(port, b"{}", **{"Content-Encoding": "gzip"}) == (415, "encoded\n")
        assert post(port, b"{}", **{"Content-Encoding": "identity"})[0] == 202
        assert post(port, b"{}", **{"X-Other": "1"}) == (400, "not_for_us\n")
        assert len(handed) == 2
        assert get(port, WEBHOOK_PATH)[0] == 405
        text = get(port, "/metrics")[1]
        assert 'pdp_webhooks_total{outcome="encoded",type="unknown"} 1.0' in text
        assert 'pdp_webhooks_total{outcome="not_for_us",type="unknown"} 1.0' in text


def test_messages_that_wait_for_their_answer_are_bounded(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_post, "HANDLING_MAX", 2)

    class Handler:
        def refusal(self, _: Sequence[tuple[str, str]]) -> str | None:
            return None

        async def answer(self, *_: object) -> tuple[int, str]:
            while waiting.count("busy\n") < 3:
                await asyncio.sleep(0.01)
            return 200, "applied"

    waiting: list[str] = []
    with (
        listening(http_application(metrics, list, Handler())) as port,
        ThreadPoolExecutor(5) as pool,
    ):
        for sent in [pool.submit(lambda: waiting.append(post(port, b"{}")[1])) for _ in range(5)]:
            sent.result()
    assert sorted(waiting) == ["applied\n"] * 2 + ["busy\n"] * 3


def test_refused_messages_are_counted_and_logged_once_a_minute(
    metrics: Metrics, capsys: pytest.CaptureFixture[str]
) -> None:
    class Handler:
        def refusal(self, _: Sequence[tuple[str, str]]) -> str | None:
            return "header_missing"

        async def answer(self, *_: object) -> tuple[int, str]:
            raise AssertionError

    with listening(http_application(metrics, list, Handler())) as port:
        for _ in range(20):
            assert post(port, b"canary") == (400, "header_missing\n")
        assert capsys.readouterr().out.count("webhooks_refused") == 1
        text = get(port, "/metrics")[1]
    assert 'pdp_webhooks_total{outcome="header_missing",type="unknown"} 20.0' in text


def test_the_metric_of_expensive_conditions_names_rules_but_not_without_bound() -> None:
    metrics = Metrics({})
    for number in range(150):
        rules = (f"rule{number}", "rule0")
        metrics.count_decisions(
            [Decision(Effect.DENY, Reason.CONDITION_FAILED, too_expensive=rules)]
        )
    text = metrics.text().decode()
    assert 'pdp_conditions_too_expensive_total{rule="rule0"} 151.0' in text
    assert 'pdp_conditions_too_expensive_total{rule="other"} 50.0' in text
    assert text.count("pdp_conditions_too_expensive_total{") == 101
