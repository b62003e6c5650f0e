"""StreamExport, and an Apply as long as what it gives."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest
from pdpapi.v1 import administration_service_pb2 as pb
from sqlalchemy import Engine

from pdp.administrator import Administrator
from pdp.errors import DatabaseUnavailable, InvalidRequest, Overloaded
from pdp.facts import Barriers, Store
from pdp.limits import APPLY_BYTES_MAX, DOCUMENT_BYTES_MAX, DOCUMENT_CHANGES_MAX, MESSAGE_BYTES_MAX
from pdp.model import User
from pdp.wire import administration_methods
from pdp.wire.callers import Caller
from pdp.wire.convert.pages import Pages
from pdp.wire.methods import Method, StreamMethod, Subscription
from pdp.wire.services.exports import EXPORTS_MAX, Exports
from tests.kit.sqlite import on_sqlite
from tests.kit.waiting import eventually, run

ANYBODY = Caller("anybody", frozenset({"administer"}))
WRITES = 2
LONG = {"note": "é" * 10_000}


def administrator_of(engine: Engine, *, users: int) -> Administrator:
    """Of a store with so many users, whose attributes are long, written in `WRITES` parts."""
    store = Store(engine)
    for part in range(WRITES):
        with store.write() as transaction:
            ids = range(part, users, WRITES)
            transaction.apply_many(User(f"user_{n}", attributes=LONG) for n in ids)
    return Administrator(store, lambda _: None)


def method(administrator: Administrator, name: str) -> Method | StreamMethod:
    pages, pool = Pages(lambda: b"s" * 32), ThreadPoolExecutor(1)
    methods = administration_methods(administrator, cast(Barriers, None), pages, pool)
    return next(method for method in methods if method.name == name)


def drained(feed: Subscription, wake: threading.Event) -> tuple[str, set[int]]:
    """The text that a stream sends, and the revisions that its messages name."""
    parts: list[str] = []
    revisions: set[int] = set()
    while True:
        taken = feed.take()
        if taken is None:
            return "".join(parts), revisions
        for raw in taken:
            assert len(raw) < MESSAGE_BYTES_MAX
            message = pb.StreamExportResponse.FromString(raw)
            parts.append(message.part)
            revisions.add(message.revision)
        if not taken:
            assert wake.wait(30)
            wake.clear()


def opened(administrator: Administrator, *sections: str) -> tuple[Subscription, threading.Event]:
    stream = method(administrator, "StreamExport")
    assert isinstance(stream, StreamMethod)
    wake = threading.Event()
    stream.listen(wake.set)
    return stream.open(pb.StreamExportRequest(sections=sections), ANYBODY), wake


@on_sqlite  # an export of either is the document: tests/administrator/test_documents.py
def test_what_is_too_long_for_a_message_comes_in_parts_and_is_applied_as_a_whole(
    engine: Engine,
) -> None:
    administrator = administrator_of(engine, users=220)
    feed, wake = opened(administrator)
    text, revisions = drained(feed, wake)
    feed.close()
    assert (text, revisions) == (administrator.export()[0], {WRITES})
    assert len(text.encode()) > MESSAGE_BYTES_MAX
    apply = method(administrator, "Apply")
    assert isinstance(apply, Method)
    assert apply.request_bytes_max == APPLY_BYTES_MAX > DOCUMENT_BYTES_MAX > 14 * len(text)
    answer = run(apply.answer(pb.ApplyRequest(document=text), ANYBODY))
    assert answer == pb.ApplyResponse(revision=WRITES)
    few, wake = opened(administrator, "roles", "permissions")
    assert drained(few, wake)[0] == "version: 1\npermissions: []\nroles: {}\n"
    with pytest.raises(InvalidRequest, match="sections"):
        opened(administrator, "user")


def test_the_answer_names_some_changes_and_counts_all(engine: Engine) -> None:
    administrator = administrator_of(engine, users=4)
    apply = method(administrator, "Apply")
    assert isinstance(apply, Method)
    users = "".join(f"- {{id: u{n}}}\n" for n in range(DOCUMENT_CHANGES_MAX))
    answer = run(apply.answer(pb.ApplyRequest(document=f"users:\n{users}", dry_run=True), ANYBODY))
    assert isinstance(answer, pb.ApplyResponse)
    assert answer.changes_total == DOCUMENT_CHANGES_MAX + 4
    assert len(answer.changes) == DOCUMENT_CHANGES_MAX
    assert answer.ByteSize() < MESSAGE_BYTES_MAX


class Halting:
    """An administrator whose export waits, and then does what the test says."""

    def __init__(self, do: Callable[[], tuple[str, int]]) -> None:
        self.go_on = threading.Event()
        self._do = do

    check_sections = staticmethod(Administrator.check_sections)

    def export(self, _: object) -> tuple[str, int]:
        assert self.go_on.wait(30)
        return self._do()


def test_so_many_at_once_and_no_more_also_when_clients_leave() -> None:
    halting = Halting(lambda: ("x", 1))
    stream = Exports(halting, "s").method()  # type: ignore[arg-type]
    stream.listen(lambda: None)
    feeds = [stream.open(pb.StreamExportRequest(), ANYBODY) for _ in range(EXPORTS_MAX)]
    assert [feed.take() for feed in feeds] == [()] * EXPORTS_MAX, "nobody waits for the rendering"
    for feed in feeds:
        feed.close()
    with pytest.raises(Overloaded):  # their clients have left, but they are still rendered
        stream.open(pb.StreamExportRequest(), ANYBODY)
    halting.go_on.set()

    def has_room() -> bool:
        try:
            stream.open(pb.StreamExportRequest(), ANYBODY).close()
        except Overloaded:
            return False
        return True

    eventually(has_room)


def test_a_database_that_fails_ends_the_stream_without_a_part() -> None:
    def fail() -> tuple[str, int]:
        raise DatabaseUnavailable("gone")

    halting = Halting(fail)
    stream = Exports(halting, "s").method()  # type: ignore[arg-type]
    woken = threading.Event()
    stream.listen(woken.set)
    feed = stream.open(pb.StreamExportRequest(), ANYBODY)
    assert feed.take() == ()
    halting.go_on.set()
    assert woken.wait(30)
    assert feed.due_at > time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        feed.take()
