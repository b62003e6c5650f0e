"""Webhook endpoints of real parts: an HTTP server, a database, and a replica that follows it."""

import http.client
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import Engine, func, select

from pdp.administrator import Administrator
from pdp.clerk.directory import Directory
from pdp.clerk.webhooks.endpoint import Webhooks
from pdp.clock import wall_clock
from pdp.facts import Replica, Store
from pdp.facts.store import tables
from pdp.http import WEBHOOK_PATH, http_application
from pdp.http.bounded_post import BODY_BYTES_MAX
from pdp.process.metrics import Metrics
from tests.kit.clerk import events
from tests.kit.clerk.events import INSTANCE_ID, SECRET
from tests.kit.waiting import eventually
from tests.kit.wire.listening import listening


@dataclass
class Endpoint:
    """One that answers at `/webhooks/clerk` on `port`."""

    engine: Engine
    administrator: Administrator
    replica: Replica
    port: int = 0
    counted: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(event type, outcome), of what came as far as the room of Clerk."""

    def deliver(self, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, str]:
        return events.deliver(self.port, body, headers)

    def post(self, headers: Sequence[tuple[str, str]], body: bytes) -> tuple[int, str]:
        """With any headers, also twice the same; status and text."""
        lines = [
            f"POST {events.PATH} HTTP/1.1",
            "Host: pdp",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in headers),
        ]
        return exchange(self.port, "\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def everything(self) -> tuple[int, int, int]:
        """The revision, and how many messages and objects of Clerk are kept: what no refused
        message may change."""
        with self.engine.connect() as connection:
            revision, messages, objects = (
                connection.execute(select(what)).scalar_one()
                for what in (
                    tables.state.c.revision,
                    func.count(tables.webhook_messages.c.id),
                    func.count(tables.clerk_objects.c.id),
                )
            )
        return revision, messages, objects


@contextmanager
def running_endpoint(
    engine: Engine, *, secrets: Sequence[str] = (SECRET,), instance_id: str = INSTANCE_ID
) -> Iterator[Endpoint]:
    store = Store(engine)
    replica = Replica(store, staleness_seconds_max=60, poll_seconds=3600)
    administrator = Administrator(store, lambda _: replica.poke())
    directory = Directory(store, lambda _: replica.poke())
    endpoint = Endpoint(engine, administrator, replica)
    webhooks = Webhooks(
        directory,
        instance_id=instance_id,
        secrets=secrets,
        clock=wall_clock,
        await_revision=replica.await_revision,
        count=lambda type_, outcome: endpoint.counted.update([(type_, outcome)]),
    )
    application = http_application(Metrics({}), list, webhooks)
    replica.start()
    try:
        with listening(application, policies=[(WEBHOOK_PATH, BODY_BYTES_MAX)]) as port:
            endpoint.port = port
            eventually(replica.ready)
            yield endpoint
    finally:
        replica.stop()


def exchange(port: int, request: bytes, *, seconds: float = 15) -> tuple[int, str]:
    """Sends bytes and reads one answer, even if the server stops reading; 0 if none came."""
    with socket.socket() as connection:
        connection.settimeout(seconds)
        try:
            connection.connect(("127.0.0.1", port))
            connection.sendall(request)
        except (BrokenPipeError, ConnectionError):
            pass
        return read_answer(connection)


def read_answer(connection: socket.socket) -> tuple[int, str]:
    """The status and text of an answer; 0 if the connection ends without one."""
    answer = http.client.HTTPResponse(connection)
    try:
        answer.begin()
        return answer.status, answer.read().decode()
    except (http.client.HTTPException, ConnectionError):
        return 0, ""
