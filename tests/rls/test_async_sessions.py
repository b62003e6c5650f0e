"""`act_as` with asynchronous sessions, against a real PostgreSQL and through pools."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from pdp_client.rls import Actor
from pdp_client.rls_sqlalchemy import act_as
from sqlalchemy import Connection, Engine, make_url, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from tests.kit.filters.tables import Lesson
from tests.kit.rls.school import IVAN, MARIA, put_school
from tests.kit.waiting import eventually

Work = Callable[[AsyncEngine], Awaitable[None]]


def on_pool(engine: Engine, work: Work, connections: int = 1) -> None:
    """Runs work with a pool of few connections of a plain role."""

    async def run() -> None:
        opened = create_async_engine(
            make_url(engine.url).set(username="app"), pool_size=connections, max_overflow=0
        )
        try:
            await work(opened)
        finally:
            await opened.dispose()

    asyncio.run(run())


@asynccontextmanager
async def session_of(engine: AsyncEngine, actor: Actor | None) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine) as session:
        act_as(session, actor)
        yield session


async def ids(session: AsyncSession) -> set[str]:
    return set(await session.scalars(select(Lesson.id)))


def sleeping(engine: Engine) -> bool:
    """Whether a statement of the application's role sleeps."""
    found = "SELECT FROM pg_stat_activity WHERE usename = 'app' AND wait_event = 'PgSleep'"
    with engine.connect() as connection:
        return connection.execute(text(found)).one_or_none() is not None


def test_a_commit_inside_a_request_keeps_the_actor(connection: Connection, engine: Engine) -> None:
    put_school(connection)

    async def work(app: AsyncEngine) -> None:
        async with session_of(app, IVAN) as session:
            (await session.get_one(Lesson, "l1")).title = "changed"
            await session.commit()
            assert await ids(session) == {"l1", "l2"}
            await session.rollback()
            assert await ids(session) == {"l1", "l2"}

    on_pool(engine, work)


def test_the_next_user_of_a_pooled_connection_has_no_rows(
    connection: Connection, engine: Engine
) -> None:
    put_school(connection)

    async def work(app: AsyncEngine) -> None:
        async with session_of(app, IVAN) as session:
            assert await ids(session)
            await session.commit()  # and no transaction begins after it
        async with session_of(app, None) as session:
            setting = await session.scalar(text("SELECT current_setting('pdp.actor', true)"))
            assert setting == ""  # and not NULL: the pool has given the same connection
            assert await ids(session) == set()

    on_pool(engine, work)


def test_a_cancelled_request_leaves_no_actor_behind(connection: Connection, engine: Engine) -> None:
    put_school(connection)

    async def work(app: AsyncEngine) -> None:
        async def request() -> None:
            async with session_of(app, IVAN) as session:
                await ids(session)
                await session.execute(text("SELECT pg_sleep(60)"))

        task = asyncio.create_task(request())
        # A cancellation that arrives before the statement is lost: it would go on with its locks.
        await asyncio.to_thread(eventually, lambda: sleeping(engine))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with session_of(app, None) as session:
            setting = await session.scalar(text("SELECT current_setting('pdp.actor', true)"))
            assert not setting
            assert await ids(session) == set()

    on_pool(engine, work)


def test_requests_that_take_turns_on_few_connections_have_their_own_rows(
    connection: Connection, engine: Engine
) -> None:
    put_school(connection)

    async def work(app: AsyncEngine) -> None:
        async def request(actor: Actor, expected: set[str]) -> None:
            async with session_of(app, actor) as session:
                for _ in range(3):
                    assert await ids(session) == expected
                    # The connection goes back to the pool, to another request.
                    await session.commit()
                    await asyncio.sleep(0)

        both = ((IVAN, {"l1", "l2"}), (MARIA, {"l3"}))
        await asyncio.gather(*(request(*both[number % 2]) for number in range(20)))

    on_pool(engine, work, connections=2)


def test_an_actor_cannot_change_within_a_transaction(
    connection: Connection, engine: Engine
) -> None:
    put_school(connection)

    async def work(app: AsyncEngine) -> None:
        async with session_of(app, IVAN) as session:
            await ids(session)
            with pytest.raises(RuntimeError, match="in a transaction already"):
                act_as(session, MARIA)

    on_pool(engine, work)
