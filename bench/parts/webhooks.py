"""Clerk's webhooks: how many messages a second are committed, and how long after the 200 to a
revocation a Check still allows, in the process that was told and in another replica."""

import base64
import http.client
import json
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from statistics import median, quantiles

import grpc
from pdpapi.v1.decision_service_pb2 import CheckResponse
from standardwebhooks import Webhook

from bench import pdp, plan
from bench.part import Figures, Run
from bench.pdp import ALLOW, DENY, Pdp, expect
from bench.plan import Plan
from bench.postgresql import postgresql
from bench.signer import Signer

_SENDERS = 8
_LATEST_SECONDS = 5.0
_INSTANCE = "ins_bench"
_SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
_CLERK: Mapping[str, object] = {"instance_id": _INSTANCE, "webhook_secrets": [_SECRET]}
_OK = 200


@dataclass(frozen=True, slots=True)
class Told:
    """What was measured on one database."""

    database: str
    messages_per_second: float
    """`user.updated`, each of another user, each committed before its 200."""
    here_ms: tuple[float, float]
    """From the 200 to a `session.revoked` to the first Check that denies, asked without a pause in
    the process that was told: median and 95th percentile."""
    elsewhere_ms: tuple[float, float]
    """The same, asked in another process on the same database."""
    allowed_here: int
    """Checks that were still allowed after the 200, in the process that was told."""


def measure(run: Run) -> Figures:
    """{"databases": [...]}: SQLite and PostgreSQL."""
    run.directory.mkdir(parents=True)
    on_sqlite = f"sqlite:///{run.directory / 'webhooks.db'}"
    told = [_measure_on("SQLite", on_sqlite, run.directory / "sqlite", run.signer, run.chosen)]
    with postgresql() as url:
        place = run.directory / "postgresql"
        told.append(_measure_on("PostgreSQL", url, place, run.signer, run.chosen))
    return {"databases": [asdict(each) for each in told]}


def _measure_on(database: str, url: str, directory: Path, signer: Signer, chosen: Plan) -> Told:
    directory.mkdir(parents=True)
    pdp.fill(url, pdp.policy_of(plan.RULES))
    with ExitStack() as started:
        told = started.enter_context(pdp.serving(directory / "told", signer, url, clerk=_CLERK))
        other = started.enter_context(pdp.serving(directory / "other", signer, url))
        rate = _rate(told, chosen.webhook_seconds)
        here = [_lag(told, told, signer, f"here{n}") for n in range(chosen.revocations)]
        elsewhere = [_lag(told, other, signer, f"other{n}") for n in range(chosen.revocations)]
        return Told(
            database,
            rate,
            _middle_and_tail([ms for ms, _ in here]),
            _middle_and_tail([ms for ms, _ in elsewhere]),
            sum(allowed for _, allowed in here),
        )


def _rate(told: Pdp, seconds: int) -> float:
    numbers = count()
    started = time.monotonic()

    def send(_: int) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", told.http_port, timeout=10)
        sent = 0
        while time.monotonic() < started + seconds:
            _deliver(connection, "user.updated", _user(next(numbers)))
            sent += 1
        connection.close()
        return sent

    with ThreadPoolExecutor(_SENDERS) as pool:
        sent = sum(pool.map(send, range(_SENDERS)))
    return sent / (time.monotonic() - started)


def _lag(told: Pdp, asked: Pdp, signer: Signer, name: str) -> tuple[float, int]:
    """Milliseconds from the 200 to the first Check that denies, and how many allowed meanwhile."""
    request = pdp.check_request(signer, plan.RULES, owner=plan.USER)
    request.actor_token = signer.token(plan.USER, plan.ORGANIZATION, f"sess_{name}")
    message = request.SerializeToString()
    connection = http.client.HTTPConnection("127.0.0.1", told.http_port, timeout=10)
    with grpc.insecure_channel(f"127.0.0.1:{asked.port}") as channel:
        ask: pdp.Ask = channel.unary_unary(pdp.CHECK)

        def answer() -> int:
            return CheckResponse.FromString(ask(message, timeout=10)).decision

        expect(answer() == ALLOW, "a session that was not revoked must be allowed")
        session = {"id": f"sess_{name}", "user_id": plan.USER, "status": "revoked"}
        _deliver(connection, "session.revoked", session)
        since = time.monotonic()
        allowed = 0
        while (given := answer()) != DENY:
            expect(given == ALLOW, "a Check must be answered")
            expect(time.monotonic() < since + _LATEST_SECONDS, "a revocation must be noticed")
            allowed += 1
        passed = time.monotonic() - since
    connection.close()
    return passed * 1000, allowed


def _deliver(
    connection: http.client.HTTPConnection, type_: str, data: Mapping[str, object]
) -> None:
    now = datetime.now(UTC)
    moment = int(now.timestamp() * 1000)
    event = {
        "object": "event",
        "type": type_,
        "instance_id": _INSTANCE,
        "timestamp": moment,
        "data": {**data, "created_at": moment, "updated_at": moment},
    }
    body = json.dumps(event)
    message = f"msg_{uuid.uuid4().hex}"
    headers = {
        "svix-id": message,
        "svix-timestamp": str(int(now.timestamp())),
        "svix-signature": Webhook(_SECRET).sign(message, now, body),
    }
    connection.request("POST", "/webhooks/clerk", body, headers)
    answer = connection.getresponse()
    said = answer.read()
    expect(answer.status == _OK, f"the message must be taken: {answer.status} {said[:200]!r}")


def _user(number: int) -> dict[str, object]:
    address = {"id": "idn_1", "email_address": f"{number}@bench.example"}
    return {
        "id": f"user_{number:027}",
        "first_name": "Ann",
        "last_name": f"{number}",
        "primary_email_address_id": "idn_1",
        "email_addresses": [address],
        "public_metadata": {"plan": "pro"},
        "banned": False,
        "locked": False,
    }


def _middle_and_tail(values: list[float]) -> tuple[float, float]:
    return median(values), quantiles(values, n=20)[-1]
