"""`pdp clerk push-claims` as a process."""

from pathlib import Path

from pdp.administrator import Administrator
from pdp.database.engine import open_engine
from pdp.facts import Store
from pdp.model import Grant, Role, ToUser, User
from tests.kit.clerk.api_server import SECRET_KEY, ClerkApiServer
from tests.kit.clerk.events import INSTANCE_ID, user
from tests.kit.server import ServerProcess


def test_a_dry_run_shows_what_differs_and_then_it_is_written(
    tmp_path: Path, sqlite_url: str
) -> None:
    engine = open_engine(sqlite_url)
    administrator = Administrator(Store(engine), on_write=lambda _: None)
    administrator.create(Role("ADMIN"))
    for name in ("user_1", "user_2", "user_3", "user_4"):
        administrator.create(User(name))
    for name in ("user_1", "user_2", "user_3"):
        administrator.create(Grant("", "ADMIN", ToUser(name)))
    engine.dispose()
    with ClerkApiServer() as clerk:
        clerk.add(user("user_1"), user("user_2"))
        settings = {"instance_id": INSTANCE_ID, "secret_key": SECRET_KEY, "api_url": clerk.url}
        shell = ServerProcess(tmp_path, {"DATABASE_URL": sqlite_url, "CLERK": settings})

        dry = shell.pdp("clerk", "push-claims", "--dry-run")
        assert (dry.returncode, dry.stderr.count("\n")) == (0, 1), "which database"
        assert dry.stdout.splitlines() == [
            'user_1: [] -> ["ADMIN"]',
            'user_2: [] -> ["ADMIN"]',
            'user_3: [] -> ["ADMIN"]',
            "3 different; nothing was written",
        ]
        assert clerk.requests == []

        some = shell.pdp("clerk", "push-claims", "user_1", "user_4", "user_9")
        assert (some.returncode, some.stderr.count("\n")) == (0, 1)
        assert some.stdout.splitlines() == [
            "user_1: written",
            "user_4: as it should be",
            "user_9: not known here",
            "1 written, 1 as it should be, 1 not known here",
        ]
        assert "pdp_roles" not in clerk.objects["user_2"]["public_metadata"]

        every = shell.pdp("clerk", "push-claims")
        assert (every.returncode, every.stderr.count("\n")) == (0, 1)
        assert every.stdout.splitlines()[1:] == [
            "user_2: written",
            "user_3: not at Clerk",
            "2 written, 1 not at Clerk",
        ]
        assert clerk.objects["user_2"]["public_metadata"] == {"pdp_roles": ["ADMIN"]}


def test_without_a_secret_key_it_says_so(tmp_path: Path, sqlite_url: str) -> None:
    done = ServerProcess(tmp_path, {"DATABASE_URL": sqlite_url}).pdp("clerk", "push-claims")
    assert done.returncode == 2
    assert "clerk.secret_key" in done.stderr
