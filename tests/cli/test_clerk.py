"""`pdp clerk sync` as a process."""

import json
import os
import pty
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pdp.clerk.api import PAGE_ITEMS
from tests.kit import prefork
from tests.kit.clerk.api_server import SECRET_KEY, ClerkApiServer, Request
from tests.kit.clerk.events import INSTANCE_ID
from tests.kit.clerk.worlds import add_school
from tests.kit.sqlite import make_sqlite

MEMBERS = 2 * PAGE_ITEMS


@pytest.fixture(scope="module")
def server() -> Iterator[ClerkApiServer]:
    with ClerkApiServer() as running:
        yield running


@pytest.fixture
def clerk(server: ClerkApiServer) -> ClerkApiServer:
    server.reset()
    return server


class Shell:
    """Command lines in a directory of their own."""

    def __init__(self, directory: Path, clerk: ClerkApiServer) -> None:
        self.directory = directory
        make_sqlite(directory / "pdp.db")
        settings = {
            "instance_id": INSTANCE_ID,
            "secret_key": SECRET_KEY,
            "api_url": clerk.url,
        }
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PDP_")},
            "PDP_ISSUERS": "https://clerk.example.test",
            "PDP_CLERK": json.dumps(settings),
        }

    def start(self, *arguments: str, stderr: int | None = None) -> prefork.Process:
        with Path(os.devnull).open("wb") as nothing:
            return prefork.Process(
                ("clerk", *arguments),
                cwd=self.directory,
                env=self.environment,
                stdout=nothing,
                stderr=nothing if stderr is None else stderr,
            )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, output, errors."""
        done = prefork.run(
            ("clerk", *arguments), cwd=self.directory, env=self.environment, timeout=60
        )
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def shell(tmp_path: Path, clerk: ClerkApiServer) -> Shell:
    return Shell(tmp_path, clerk)


def hold_at_the_third_page(clerk: ClerkApiServer) -> tuple[threading.Event, threading.Event]:
    """For the list of users: an event when it is requested, and one that releases the answer."""
    asked, let_go = threading.Event(), threading.Event()

    def hold(request: Request) -> None:
        if request.path == "/users" and clerk.asked("/users") == 2:
            asked.set()
            let_go.wait(30)

    clerk.on_request = hold
    return asked, let_go


def test_a_killed_sync_continues_where_it_was(
    shell: Shell, clerk: ClerkApiServer, tmp_path: Path
) -> None:
    add_school(clerk, MEMBERS)
    asked, let_go = hold_at_the_third_page(clerk)
    killed = shell.start("sync")
    assert asked.wait(30)
    killed.kill()
    killed.wait(30)
    let_go.set()
    clerk.on_request = lambda _: None

    status, said, errors = shell.run("sync")
    assert (status, said) == (2, "")
    assert "a sync is under way, or its process died less than 60 s ago" in errors

    with sqlite3.connect(tmp_path / "pdp.db") as database:  # 60 s later
        database.execute("UPDATE clerk_sync SET due_at = due_at - 60")
    database.close()
    clerk.requests.clear()
    status, said, errors = shell.run("sync")
    assert (status, errors.count("\n")) == (0, 1), "which database, and no more"
    assert f"membership missing: {MEMBERS}\n" in said
    assert said.endswith(" differences healed\n")
    assert clerk.asked("/organizations") == 0
    assert clerk.asked("/users") == 1


def test_a_dry_run_prints_what_differs_and_exits_with_1(
    shell: Shell, clerk: ClerkApiServer
) -> None:
    add_school(clerk, 1)
    status, said, errors = shell.run("sync", "--dry-run")
    assert (status, errors.count("\n")) == (1, 1), errors
    rows = [line.split() for line in said.splitlines()]
    assert rows[0] == ["kind", "id", "drift"]
    assert ["user", "user_00000", "missing"] in rows
    assert ["membership", "org_1/user_00000", "missing"] in rows
    assert rows[-6] == ["membership", "missing:", "1"]
    assert said.endswith("\n5 differences; nothing was changed\n")


def test_on_a_terminal_bars_show_how_far_it_is_and_sigterm_leaves_at_once(
    shell: Shell, clerk: ClerkApiServer, tmp_path: Path
) -> None:
    add_school(clerk, MEMBERS)
    asked, let_go = hold_at_the_third_page(clerk)
    terminal, its_end = pty.openpty()
    process = shell.start("sync", stderr=its_end)
    os.close(its_end)
    assert asked.wait(30)
    process.send_signal(signal.SIGTERM)
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 65_536)
        except OSError:  # nobody is at the other end any more
            break
    os.close(terminal)
    assert process.wait(10) == 128 + signal.SIGTERM
    let_go.set()
    assert b"users" in shown
    assert f"/{MEMBERS}".encode() in shown

    with sqlite3.connect(tmp_path / "pdp.db") as database:
        step, due_at = database.execute("SELECT step, due_at FROM clerk_sync").fetchone()
    database.close()
    assert step == "users"
    assert due_at < time.time()  # the next one need not wait for this one's lease
