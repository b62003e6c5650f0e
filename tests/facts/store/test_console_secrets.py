"""Secrets of the console: stored as hashes, good for one thing, for a time, and links once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, select

from pdp.database.engine import begin_read
from pdp.facts.store.console_secrets import ConsoleSecrets, SecretKind
from pdp.facts.store.state import renew_epoch
from pdp.facts.store.tables import console_secrets

CONTENT = {"user_id": "user_1", "claims": {"a": [1.5, None, "é"]}}


class Clock:
    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(engine: Engine, clock: Clock) -> ConsoleSecrets:
    return ConsoleSecrets(engine, clock=clock)


def rows(engine: Engine) -> list[str]:
    with begin_read(engine) as connection:
        return [str(tuple(row)) for row in connection.execute(select(console_secrets))]


def test_what_is_stored_is_read_until_it_expires(store: ConsoleSecrets, clock: Clock) -> None:
    secret = store.create(SecretKind.SESSION, CONTENT, 900)
    assert store.read(SecretKind.SESSION, secret) == CONTENT
    clock.now += 899
    assert store.read(SecretKind.SESSION, secret) == CONTENT
    clock.now += 1
    assert store.read(SecretKind.SESSION, secret) is None
    assert store.take(SecretKind.SESSION, secret) is None


def test_a_copy_of_the_database_holds_no_secret(engine: Engine, store: ConsoleSecrets) -> None:
    secret = store.create(SecretKind.LINK, CONTENT, 900)
    (row,) = rows(engine)
    assert secret not in row
    assert store.read(SecretKind.LINK, row.split("'")[1]) is None


def test_a_link_is_no_session_and_a_session_no_link(store: ConsoleSecrets) -> None:
    for kind, other in (
        (SecretKind.LINK, SecretKind.SESSION),
        (SecretKind.SESSION, SecretKind.LINK),
    ):
        secret = store.create(kind, CONTENT, 900)
        assert store.read(other, secret) is None
        assert store.take(other, secret) is None
        assert store.read(kind, secret) == CONTENT


@pytest.mark.parametrize("made_up", ["", "x", "\x00", "\ud800", "x" * 10_000, "%", "' OR 1=1 --"])
def test_a_value_that_was_made_up_is_not_found(store: ConsoleSecrets, made_up: str) -> None:
    store.create(SecretKind.SESSION, CONTENT, 900)
    assert store.read(SecretKind.SESSION, made_up) is None
    assert store.take(SecretKind.SESSION, made_up) is None


def test_of_many_at_once_one_takes_a_link(store: ConsoleSecrets) -> None:
    secret = store.create(SecretKind.LINK, CONTENT, 900)
    barrier = threading.Barrier(8)

    def take() -> object:
        barrier.wait()
        return store.take(SecretKind.LINK, secret)

    with ThreadPoolExecutor(8) as pool:
        taken = [future.result() for future in [pool.submit(take) for _ in range(8)]]
    assert [value for value in taken if value is not None] == [CONTENT]


def test_what_has_expired_is_removed_by_the_next(
    engine: Engine, store: ConsoleSecrets, clock: Clock
) -> None:
    for _ in range(3):
        store.create(SecretKind.SESSION, CONTENT, 10)
    clock.now += 11
    store.create(SecretKind.LINK, CONTENT, 10)
    assert len(rows(engine)) == 1


def test_no_secret_of_before_a_restore_is_valid_after_it(
    engine: Engine, store: ConsoleSecrets
) -> None:
    """Of a link that was used, or a session that was ended, the use or the end may be lost."""
    link, session = (store.create(kind, {}, 60) for kind in SecretKind)
    assert store.read(SecretKind.SESSION, session) == {}
    renew_epoch(engine)
    assert store.read(SecretKind.SESSION, session) is None
    assert store.take(SecretKind.LINK, link) is None
    later = store.create(SecretKind.LINK, {}, 60)
    assert store.take(SecretKind.LINK, later) == {}
