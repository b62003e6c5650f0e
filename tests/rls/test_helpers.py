"""The helpers that bind an actor, against a real PostgreSQL and through pools."""

import asyncio
from collections.abc import Iterator

import psycopg
import pytest
from pdp_client.rls import Actor, async_transaction, transaction
from pdp_client.rls_sqlalchemy import act_as
from sqlalchemy import Connection, Engine, create_engine, make_url, select, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from tests.kit.filters.tables import Lesson
from tests.kit.rls.school import IVAN, MARIA, put_school


@pytest.fixture
def app(engine: Engine, connection: Connection) -> Iterator[Engine]:
    """What the application has: one connection, pooled, of a plain role."""
    put_school(connection)
    opened = create_engine(_url(engine), poolclass=QueuePool, pool_size=1, max_overflow=0)
    yield opened
    opened.dispose()


def _url(engine: Engine) -> str:
    return make_url(engine.url).set(username="app").render_as_string(hide_password=False)


def _libpq(engine: Engine) -> str:
    return _url(engine).replace("postgresql+psycopg", "postgresql")


def _ids(session: Session) -> set[str]:
    return set(session.scalars(select(Lesson.id)))


def test_a_session_has_the_rows_of_its_actor(app: Engine) -> None:
    with Session(app) as session:
        act_as(session, IVAN)
        assert _ids(session) == {"l1", "l2"}


def test_a_commit_inside_a_request_keeps_the_actor(app: Engine) -> None:
    with Session(app) as session:
        act_as(session, IVAN)
        session.get_one(Lesson, "l1").title = "changed"
        session.commit()
        assert _ids(session) == {"l1", "l2"}
        session.rollback()
        assert _ids(session) == {"l1", "l2"}


def test_a_savepoint_that_is_rolled_back_keeps_the_actor(app: Engine) -> None:
    with Session(app) as session:
        act_as(session, IVAN)
        with session.begin_nested() as savepoint:
            savepoint.rollback()
        assert _ids(session) == {"l1", "l2"}


def test_the_next_user_of_a_pooled_connection_has_no_rows(app: Engine) -> None:
    with Session(app) as session:
        act_as(session, IVAN)
        assert _ids(session)
    with Session(app) as session:
        setting = session.scalar(text("SELECT current_setting('pdp.actor', true)"))
        assert setting == ""  # and not NULL: the pool has given the same connection
        assert _ids(session) == set()


def test_the_next_user_of_a_pooled_connection_has_their_own_rows(app: Engine) -> None:
    for actor, expected in ((IVAN, {"l1", "l2"}), (MARIA, {"l3"}), (IVAN, {"l1", "l2"})):
        with Session(app) as session:
            act_as(session, actor)
            assert _ids(session) == expected


def test_an_actor_cannot_change_within_a_transaction(app: Engine) -> None:
    with Session(app) as session:
        act_as(session, IVAN)
        _ids(session)
        with pytest.raises(RuntimeError, match="in a transaction already"):
            act_as(session, MARIA)


def test_without_transactions_nobody_has_rows(app: Engine) -> None:
    with Session(app.execution_options(isolation_level="AUTOCOMMIT")) as session:
        act_as(session, IVAN)
        assert _ids(session) == set()


def test_a_transaction_of_psycopg_has_an_actor_and_the_next_one_has_none(
    app: Engine, engine: Engine
) -> None:
    with psycopg.connect(_libpq(engine), autocommit=True) as connection:
        with transaction(connection, MARIA):
            assert connection.execute("SELECT id FROM lessons").fetchall() == [("l3",)]
        assert connection.execute("SELECT id FROM lessons").fetchall() == []


def test_a_transaction_of_psycopg_begins_outside_of_others(app: Engine, engine: Engine) -> None:
    with psycopg.connect(_libpq(engine)) as connection:
        connection.execute("SELECT 1")
        with (
            pytest.raises(RuntimeError, match="in a transaction already"),
            transaction(connection, MARIA),
        ):
            pass


def test_an_asynchronous_transaction_of_psycopg_has_an_actor(app: Engine, engine: Engine) -> None:
    async def ids() -> list[tuple[str]]:
        async with (
            await psycopg.AsyncConnection.connect(_libpq(engine)) as connection,
            async_transaction(connection, MARIA),
        ):
            found = await connection.execute("SELECT id FROM lessons")
            return await found.fetchall()

    assert asyncio.run(ids()) == [("l3",)]


@pytest.mark.parametrize(
    "organization", ['o1","user":"u2', "o1'; SET ROLE postgres; --", "o1\\", "%s", "😀", "O1"]
)
def test_an_organization_of_any_text_is_only_a_text(app: Engine, organization: str) -> None:
    with Session(app) as session:
        act_as(session, Actor(IVAN.user, IVAN.session, organization))
        assert _ids(session) == set()


@pytest.mark.parametrize("actor", [("", "s1"), ("u1", "")])
def test_an_actor_without_user_or_session_is_refused(actor: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="is empty"):
        Actor(*actor)
    with pytest.raises(TypeError):
        Actor(None, "s1")
