"""A PgBouncer before a database of a `Cluster`."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url

from tests.kit.clusters import Cluster

MODES = ("transaction", "statement")
MISSING = "there is no pgbouncer on the PATH: install Debian's package"


def pgbouncer() -> str | None:
    """The program, if it is installed. Fails in CI if it is not."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program or not os.environ.get("CI"), MISSING
    return program


@contextmanager
def started_pooler(cluster: Cluster, database: str, user: str) -> Iterator[dict[str, URL]]:
    """Yields a URL for each of MODES. All clients of one share a single connection of the user.

    Skips the test if PgBouncer is not installed, and fails it in CI.
    """
    program = pgbouncer()
    if program is None:
        pytest.skip(MISSING)
    url = make_url(database)
    directory = cluster.directory / "pooler"
    directory.mkdir()
    if cluster.system_user is not None:  # PgBouncer refuses to run as root
        shutil.chown(directory, cluster.system_user)
    host = url.query["host"]
    server = f"host={host} port={url.port or 5432} dbname={url.database} user={user} pool_size=1"
    lines = [
        "[databases]",
        *(f"{mode} = {server} pool_mode={mode}" for mode in MODES),
        "[pgbouncer]",
        f"unix_socket_dir = {directory}",
        "auth_type = any",
    ]
    ini = _written(directory / "pgbouncer.ini", lines)
    process = subprocess.Popen(
        [program, ini], user=cluster.system_user, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        log: list[str] = []
        while not any("process up" in line for line in log):
            log.append(process.stderr.readline())
            assert log[-1], log
        yield {
            mode: URL.create(
                "postgresql+psycopg",
                username=user,
                database=mode,
                query={"host": str(directory), "port": "6432"},
            )
            for mode in MODES
        }
    finally:
        process.kill()
        process.communicate()


def _written(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path
