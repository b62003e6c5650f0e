"""The helpers and the policies behind a real PgBouncer: what its next client has."""

import asyncio
from collections.abc import Iterator

import psycopg
import pytest
from pdp_client.rls import Actor, async_transaction, transaction
from pdp_client.rls_sqlalchemy import act_as
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from tests.kit.clusters import Cluster
from tests.kit.filters.tables import Lesson
from tests.kit.pooler import started_pooler
from tests.kit.rls.school import IVAN, MARIA, put_school

IDS = "SELECT id FROM lessons ORDER BY id"
TURNS: list[tuple[Actor | None, list[str]]] = [(IVAN, ["l1", "l2"]), (MARIA, ["l3"]), (None, [])]


@pytest.fixture(scope="module")
def pooler(cluster: Cluster, engine: Engine) -> Iterator[dict[str, URL]]:
    with engine.connect() as connection:
        put_school(connection)
    database = engine.url.render_as_string(hide_password=False)
    with started_pooler(cluster, database, user="app") as urls:
        yield urls


@pytest.fixture
def clients(pooler: dict[str, URL]) -> Iterator[list[psycopg.Connection]]:
    """Three clients in transaction mode, on one connection of the database."""
    opened = [_connect(pooler["transaction"]) for _ in range(3)]
    yield opened
    for client in opened:
        client.close()


def _dsn(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _connect(url: URL) -> psycopg.Connection:
    # This PgBouncer may be older than 1.21, which has no prepared statements in these modes.
    return psycopg.connect(_dsn(url), autocommit=True, prepare_threshold=None)


def _engine(url: URL) -> Engine:
    return create_engine(url, poolclass=NullPool, connect_args={"prepare_threshold": None})


def ids(client: psycopg.Connection, statement: str = IDS) -> list[str]:
    return [row[0] for row in client.execute(statement)]


def server_of(client: psycopg.Connection) -> int:
    [[pid]] = client.execute("SELECT pg_backend_pid()").fetchall()
    return int(pid)


# --- transaction mode -----------------------------------------------------------------------------


def test_clients_that_take_turns_have_their_own_rows(clients: list[psycopg.Connection]) -> None:
    assert len({server_of(client) for client in clients}) == 1
    for _ in range(3):
        for client, (actor, expected) in zip(clients, TURNS, strict=True):
            if actor is not None:
                with transaction(client, actor):
                    assert ids(client) == expected
            assert ids(client) == []  # also the same client, after its transaction


def test_an_actor_ends_with_a_transaction_that_fails(clients: list[psycopg.Connection]) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero), transaction(clients[0], IVAN):
        clients[0].execute("SELECT 1 / 0")
    assert ids(clients[1]) == []
    assert server_of(clients[1]) == server_of(clients[0])


def test_a_client_that_breaks_off_leaves_no_actor_behind(
    clients: list[psycopg.Connection],
) -> None:
    begun = transaction(clients[0], IVAN)
    begun.__enter__()
    assert ids(clients[0]) == ["l1", "l2"]
    clients[0].pgconn.finish()  # without a ROLLBACK
    assert ids(clients[1]) == []


def test_a_session_of_sqlalchemy_keeps_its_actor_over_commits(pooler: dict[str, URL]) -> None:
    app = _engine(pooler["transaction"])
    with Session(app) as one, Session(app) as other, Session(app) as nobody:
        act_as(one, IVAN)
        act_as(other, MARIA)
        for _ in range(2):
            for session, (_, expected) in zip((one, other, nobody), TURNS, strict=True):
                assert sorted(session.scalars(select(Lesson.id))) == expected
                session.commit()  # the connection goes to the next client


def test_an_asynchronous_transaction_ends_with_its_actor(pooler: dict[str, URL]) -> None:
    async def run() -> None:
        async with await psycopg.AsyncConnection.connect(
            _dsn(pooler["transaction"]), autocommit=True, prepare_threshold=None
        ) as client:
            async with async_transaction(client, MARIA):
                assert await (await client.execute(IDS)).fetchall() == [("l3",)]
            assert await (await client.execute(IDS)).fetchall() == []

    asyncio.run(run())


def test_an_actor_that_is_set_for_the_session_goes_to_the_next_client(
    clients: list[psycopg.Connection],
) -> None:
    """Positive control, and the misuse that the documentation warns of."""
    clients[0].execute("SELECT set_config('pdp.actor', %s, false)", [IVAN.setting()])
    try:
        assert ids(clients[1]) == ["l1", "l2"]
    finally:
        clients[2].execute("RESET pdp.actor")
    assert ids(clients[1]) == []


# --- statement mode -------------------------------------------------------------------------------


def test_a_transaction_is_refused_in_statement_mode(pooler: dict[str, URL]) -> None:
    client = _connect(pooler["statement"])
    with pytest.raises(psycopg.OperationalError), transaction(client, IVAN):
        pytest.fail("it has begun")
    with Session(_engine(pooler["statement"])) as session:
        act_as(session, IVAN)
        with pytest.raises(DBAPIError):
            session.scalars(select(Lesson.id)).all()
    with _connect(pooler["statement"]) as other:
        assert ids(other) == []


def test_an_actor_ends_with_its_statement_in_statement_mode(pooler: dict[str, URL]) -> None:
    setting = IVAN.setting()
    with _connect(pooler["statement"]) as client, _connect(pooler["statement"]) as other:
        client.execute("SELECT set_config('pdp.actor', %s, true)", [setting])
        assert ids(client) == []
        # Statements that are sent as one are one transaction.
        client.execute(f"SELECT set_config('pdp.actor', '{setting}', true); {IDS}")
        assert ids(other) == ids(client) == []
        assert server_of(other) == server_of(client)


def test_the_policies_are_at_work_behind_the_pooler(
    connection: Connection, pooler: dict[str, URL]
) -> None:
    """Positive control: without them each client has all rows."""
    put_school(connection)
    connection.execute(text("ALTER TABLE lessons DISABLE ROW LEVEL SECURITY"))
    connection.commit()
    try:
        with _connect(pooler["statement"]) as client:
            assert ids(client) == ["l1", "l2", "l3", "l5"]
    finally:
        connection.execute(text("ALTER TABLE lessons ENABLE ROW LEVEL SECURITY"))
        connection.commit()
