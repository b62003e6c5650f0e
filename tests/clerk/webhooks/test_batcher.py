"""Messages that wait for the database are written together."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from pdp.administrator import Administrator
from pdp.clerk.directory import Directory
from pdp.clerk.observations import Message, Observed, SessionEnded, UserSeen
from pdp.clerk.webhooks.batcher import MESSAGES_MAX, Batcher
from pdp.database.engine import open_engine
from pdp.errors import DatabaseUnavailable, InvalidRequest
from pdp.facts import Store
from pdp.model import User
from tests.kit.waiting import eventually


def message(number: int) -> Message:
    return Message(
        f"msg_{number:08}", UserSeen(id=f"user_{number}", updated_at=number, noticed_at=number)
    )


def waiting(batcher: Batcher) -> int:
    """How many messages wait for the transaction before theirs."""
    return len(batcher._waiting)


class Database:
    """A directory whose transactions wait until the test lets them continue."""

    def __init__(self, url: str) -> None:
        store = Store(open_engine(url))
        self.administrator = Administrator(store, lambda _: None)
        self.directory = Directory(store, lambda _: None)
        self.sizes: list[int] = []
        self.may_go_on = threading.Event()

    def write(self, messages: Sequence[Message]) -> Sequence[Observed]:
        self.sizes.append(len(messages))
        self.may_go_on.wait(10)
        return self.directory.observe_messages(messages)


@pytest.fixture
def database(sqlite_url: str) -> Database:
    return Database(sqlite_url)


def test_a_lone_message_waits_for_nobody(database: Database) -> None:
    database.may_go_on.set()
    assert Batcher(database.write).write(message(1)).revision == 1
    assert database.sizes == [1]


def test_those_that_wait_are_written_in_one_transaction(database: Database) -> None:
    batcher = Batcher(database.write)
    count = MESSAGES_MAX + 10
    with ThreadPoolExecutor(1 + count) as pool:
        first = pool.submit(batcher.write, message(0))
        eventually(lambda: database.sizes == [1])
        others = [pool.submit(batcher.write, message(number)) for number in range(1, 1 + count)]
        eventually(lambda: waiting(batcher) == count)
        database.may_go_on.set()
        assert first.result().revision == 1
        assert {future.result().revision for future in others} == {2, 3}
    assert database.sizes == [1, MESSAGES_MAX, 10]
    assert len(database.administrator.list(User)) == 1 + count


def test_one_that_cannot_be_stored_does_not_keep_the_others_out(database: Database) -> None:
    batcher = Batcher(database.write)
    unstorable = Message("msg_bad", SessionEnded(session_id="sess_\0", user_id="user_1"))
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(batcher.write, message(0))
        eventually(lambda: database.sizes == [1])
        good = [pool.submit(batcher.write, message(number)) for number in (1, 2)]
        bad = pool.submit(batcher.write, unstorable)
        eventually(lambda: waiting(batcher) == 3)
        database.may_go_on.set()
        assert [future.result().duplicate for future in (first, *good)] == [False] * 3
        with pytest.raises(InvalidRequest):
            bad.result()
    assert len(database.administrator.list(User)) == 3


def test_all_waiting_messages_fail_if_the_database_is_unavailable() -> None:
    def away(messages: Sequence[Message]) -> Sequence[Observed]:
        sizes.append(len(messages))
        may_go_on.wait(10)
        raise DatabaseUnavailable("it is away")

    sizes: list[int] = []
    may_go_on = threading.Event()
    batcher = Batcher(away)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(batcher.write, message(0))
        eventually(lambda: sizes == [1])
        others = [pool.submit(batcher.write, message(number)) for number in (1, 2)]
        eventually(lambda: waiting(batcher) == 2)
        may_go_on.set()
        for future in (first, *others):
            with pytest.raises(DatabaseUnavailable):
                future.result()
    assert sizes == [1, 2]


def test_a_message_that_waits_too_long_fails_and_is_not_written_later(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdp.clerk.webhooks.batcher.WAIT_SECONDS_MAX", 0.05)
    batcher = Batcher(database.write)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(batcher.write, message(0))
        eventually(lambda: database.sizes == [1])
        with pytest.raises(DatabaseUnavailable):
            batcher.write(message(1))
        database.may_go_on.set()
        first.result()
    batcher.write(message(2))
    assert [user.id for user in database.administrator.list(User)] == ["user_0", "user_2"]
