"""Errors name their cause: the database, the port, the certificate, the way to a server."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import make_url

from pdp.database.engine import begin_read, open_engine
from pdp.database.migrations import migrate
from pdp.errors import DatabaseUnavailable
from tests.kit.ports import free_port
from tests.kit.server import ServerProcess
from tests.kit.waiting import eventually
from tests.kit.wire.tls import Authority, tls_server

CANARY = "canary-s3cret"


def with_database(directory: Path, url: str) -> ServerProcess:
    return ServerProcess(directory, {"DATABASE_URL": url})


def changed(url: str, **parts: object) -> str:
    return make_url(url).set(**parts).render_as_string(hide_password=False)  # type: ignore[arg-type]


POSTGRESQL: dict[str, tuple[Callable[[str], str], str]] = {
    "wrong name": (
        lambda url: changed(url, database="nothing", password=CANARY),
        "the server has no database of this name",
    ),
    "wrong role": (
        lambda url: changed(url, username="nobody", password=CANARY),
        "the server has no role of this name",
    ),
    "down": (
        lambda _: f"postgresql://pdp:{CANARY}@127.0.0.1:1/pdp",
        "nothing listens at this host and port",
    ),
    "no such host": (
        lambda _: f"postgresql://pdp:{CANARY}@nowhere.invalid/pdp",
        "the name of the host cannot be resolved",
    ),
    "odd option": (
        lambda _: f"postgresql://pdp:{CANARY}@127.0.0.1:1/pdp?sslmode={CANARY}",
        "an option of the URL has a value that is none",
    ),
}
SQLITE: dict[str, tuple[Callable[[Path], str], str]] = {
    "no directory": (lambda _: "sqlite:////nowhere/pdp.db", "the file cannot be opened"),
    "a directory": (lambda path: f"sqlite:///{path}", "the file cannot be opened"),
    "another file": (lambda path: f"sqlite:///{path / 'text'}", "is not a SQLite database"),
}


@pytest.mark.parametrize(("url", "said"), POSTGRESQL.values(), ids=POSTGRESQL)
def test_an_error_of_postgresql_is_explained_without_the_url(
    postgresql_server: str, url: Callable[[str], str], said: str
) -> None:
    engine = open_engine(url(postgresql_server))
    with pytest.raises(DatabaseUnavailable) as error, begin_read(engine):
        pass
    assert f"the database does not answer: {said}" in error.value.message
    assert CANARY not in error.value.message
    engine.dispose()


def test_the_command_line_says_what_is_wrong_and_which_database_it_asked(
    tmp_path: Path, postgresql_server: str
) -> None:
    url = changed(postgresql_server, database="nothing", password=CANARY)
    done = with_database(tmp_path, url).pdp("export")
    assert done.returncode == 2
    assert "the server has no database of this name" in done.stderr
    assert "database postgresql://" in done.stderr
    assert CANARY not in done.stderr


@pytest.mark.parametrize(("url", "said"), SQLITE.values(), ids=SQLITE)
def test_an_error_of_sqlite_is_explained(
    tmp_path: Path, url: Callable[[Path], str], said: str
) -> None:
    (tmp_path / "text").write_text("some other file, which is long enough to be looked at" * 9)
    with pytest.raises(DatabaseUnavailable, match=said):
        migrate(url(tmp_path))


def test_log_readiness_and_doctor_say_what_is_wrong_and_that_migrate_was_not_run(
    tmp_path: Path, postgresql_server: str
) -> None:
    server = with_database(tmp_path, changed(postgresql_server, database="nothing"))
    server.start(ready=False)
    try:
        want = "the server has no database of this name"
        eventually(lambda: want in server.http("/readyz")[1], seconds=20)
        assert server.http("/readyz")[0] == 503
        assert want in server.log()
        assert want in server.pdp("clerk", "doctor").stdout
    finally:
        server.stop()


def test_serve_before_migrate_says_so_at_readyz(tmp_path: Path, postgresql_server: str) -> None:
    from tests.kit.clusters import administer

    name = f"pdp_empty_{free_port()}"
    administer(postgresql_server, f'CREATE DATABASE "{name}"')
    server = with_database(tmp_path, changed(postgresql_server, database=name))
    server.start(ready=False)
    try:
        eventually(lambda: "run `pdp migrate`" in server.http("/readyz")[1], seconds=20)
    finally:
        server.stop()
        administer(postgresql_server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_port_that_is_taken_is_named_and_nothing_is_tried_again(
    tmp_path: Path, processes: str
) -> None:
    server = ServerProcess(tmp_path, {"PROCESSES": processes})
    with socket.create_server(("127.0.0.1", server.port)):
        done = server.pdp("serve")
    assert done.returncode == 2
    want = f"pdp: cannot listen on 127.0.0.1:{server.port}: Address already in use"
    assert done.stderr.strip() == want


def test_a_unix_socket_that_answers_is_not_taken_from_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "pdp.sock"
    server = ServerProcess(tmp_path, {"LISTEN": f"unix:{path}"})
    with socket.socket(socket.AF_UNIX) as owner:
        owner.bind(str(path))
        owner.listen()
        done = server.pdp("serve")
        assert "Address already in use" in done.stderr
        assert path.is_socket()
    done = server.pdp("serve", "--listen", f"unix:{tmp_path}/no/where.sock")
    assert "its directory is not there" in done.stderr


@pytest.mark.parametrize(
    ("fault", "processes"),
    [
        ("other key", "2"),
        ("no key", "1"),
        ("not PEM", "1"),
        ("no file", "1"),
        ("no authority", "1"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_named_and_nothing_is_tried_again(
    tmp_path: Path, fault: str, processes: int
) -> None:
    authority = Authority("one")
    server = tls_server(tmp_path, authority, mtls=True)
    server.environment["PDP_PROCESSES"] = str(processes)
    key = tmp_path / "server.key"
    want = "are not a PEM certificate and its private key"
    if fault == "other key":
        key.write_bytes(authority.issue()[0])
        want = f"tls: the private key {key} does not belong to the certificate"
    elif fault == "no key":
        key.write_bytes(b"")
    elif fault == "not PEM":
        (tmp_path / "server.pem").write_text("nonsense")
    elif fault == "no file":
        key.unlink()
        want = "No such file or directory"
    else:
        (tmp_path / "ca.pem").write_text("nonsense")
        want = "holds no PEM certificate"
    done = server.pdp("serve")
    assert done.returncode == 2
    assert want in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_of_several_processes_that_cannot_start_none_is_started_again(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, {"PROCESSES": "2", "AUDIT_DIRECTORY": "issuer.pem"})
    done = server.pdp("serve")
    assert done.returncode == 2
    assert "the audit directory" in done.stderr
    assert "did not start" in done.stderr
    ended = [line for line in done.stderr.splitlines() if "worker_ended" in line]
    assert len(ended) == 1


def test_without_issuers_or_upstreams_the_variable_is_named_with_an_example(
    tmp_path: Path,
) -> None:
    server = ServerProcess(tmp_path)
    del server.environment["PDP_ISSUERS"]
    said = server.pdp("serve").stderr
    assert "PDP_ISSUERS=https://your-app.clerk.accounts.dev" in said
    assert "PDP_SIDECAR_UPSTREAMS=pdp.internal:50051" in server.pdp("sidecar").stderr


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    directory = tmp_path_factory.mktemp("tls")
    server = tls_server(directory, Authority("one"), mtls=False)
    server.start()
    yield server
    server.stop()


def asked(server: ServerProcess, *options: str) -> str:
    """The error of two commands, which wait for the server until their deadline, is the same."""
    commands = [("check", "course:view", "--token", "x"), ("audit", "list")]
    with ThreadPoolExecutor(2) as pool:
        checked, listed = pool.map(
            lambda command: server.pdp(*command, "--api-key", "pdp_x", *options), commands
        )
    assert checked.returncode == listed.returncode == 2
    assert checked.stderr.splitlines()[-1] == listed.stderr.splitlines()[-1]
    return checked.stderr


def test_tls_on_one_side_only_is_explained(tls: ServerProcess, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(Authority("two").certificate)
    clear = ServerProcess(tmp_path)
    clear.start()
    try:
        with ThreadPoolExecutor(3) as pool:
            without, wrong, unwanted = pool.map(
                lambda arguments: asked(*arguments),
                [
                    (tls,),
                    (tls, "--ca", str(other)),
                    (clear, "--ca", str(tls.directory / "ca.pem")),
                ],
            )
    finally:
        clear.stop()
    assert f"127.0.0.1:{tls.port} expects TLS: name its authority with --ca" in without
    assert "is not accepted" in wrong
    assert f"127.0.0.1:{clear.port} does not speak TLS" in unwanted
    assert "Connection refused; is `pdp serve` running?" in asked(clear)


@pytest.mark.parametrize("scheme", ["http", "https", "grpc"])
def test_a_url_is_no_server(tmp_path: Path, scheme: str) -> None:
    server = ServerProcess(tmp_path)
    server.environment["PDP_SERVER"] = f"{scheme}://127.0.0.1:{server.port}"
    done = server.pdp("audit", "list")
    assert done.returncode == 2
    assert f"a target is host:port: leave out {scheme}://" in done.stderr
