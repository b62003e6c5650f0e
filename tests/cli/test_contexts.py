"""Client profiles: which connection a command takes, and who may read its keys."""

import os
import stat
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.cli.running import Run
from tests.kit.server import PDP, ServerProcess, running_server

KEY, OTHER_KEY = "pdp_key-of-the-team", "pdp_key-of-somebody-else"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    callers = [
        {"name": "team", "api_key_sha256": sha256(KEY.encode()).hexdigest(), "may": ["administer"]},
        {"name": "other", "api_key_sha256": sha256(OTHER_KEY.encode()).hexdigest()},
    ]
    with running_server(tmp_path_factory.mktemp("callers"), CALLERS=callers) as (server, _):
        yield server


@pytest.fixture
def address(server: ServerProcess) -> str:
    return server.environment["PDP_SERVER"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config" / "pdp" / "profiles.json"


def test_a_profile_is_a_whole_connection(run: Run, address: str) -> None:
    made = run("context", "set", "team", "--server", address, "--with-key", stdin=f"{KEY}\n")
    assert made.status == 0
    assert KEY not in made.out + made.err
    run("context", "set", "other", "--server", address, "--with-key", stdin=OTHER_KEY)
    assert run("whoami").out.splitlines() == [
        "caller: team",
        "capabilities: administer",
        f"server: {address}",
        "profile: team",
    ]
    assert "caller: other" in run("whoami", "--context", "other").out
    assert "caller: other" in run("--context", "other", "whoami").out
    assert run("context", "use", "other").status == 0
    assert "caller: other" in run("whoami").out
    listed = run("context", "list").out
    assert "*  other" in listed
    assert KEY not in listed
    assert run("context", "delete", "other").status == 0
    assert "there is no profile 'other'" in run("whoami", "--context", "other").err
    # An empty variable of a script does not choose the current profile.
    assert "there is no profile ''" in run("whoami", "--context", "").err


def test_what_a_caller_may_not_is_one_line_that_names_the_next_command(
    run: Run, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDP_SERVER", address)
    unknown = run("whoami")
    assert (unknown.status, len(unknown.err.splitlines())) == (2, 1)
    assert "set PDP_API_KEY, or choose a profile with --context" in unknown.err
    monkeypatch.setenv("PDP_API_KEY", OTHER_KEY)
    denied = run("get", "users")
    assert (denied.status, len(denied.err.splitlines())) == (2, 1)
    assert "PERMISSION_DENIED" in denied.err
    assert "`pdp whoami`" in denied.err
    assert OTHER_KEY not in denied.err


def test_the_key_of_one_source_never_goes_to_the_server_of_another(
    run: Run, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("context", "set", "team", "--server", address, "--with-key", stdin=KEY)
    # The current profile has a key; a server that is named otherwise does not get it.
    assert "UNAUTHENTICATED" in run("whoami", "--server", address).err
    monkeypatch.setenv("PDP_SERVER", address)
    assert "UNAUTHENTICATED" in run("whoami").err
    # A variable with another key does not go to the server of a profile.
    monkeypatch.setenv("PDP_API_KEY", OTHER_KEY)
    assert "caller: team" in run("whoami", "--context", "team").out
    both = run("whoami", "--context", "team", "--server", "127.0.0.1:1")
    assert both.status == 2
    assert "--server and --context exclude each other" in both.err
    monkeypatch.setenv("PDP_CONTEXT", "team")
    assert "PDP_SERVER and PDP_CONTEXT are both set" in run("whoami").err
    # Options win over PDP_CONTEXT, as a whole.
    assert "caller: other" in run("whoami", "--server", address).out


def test_a_command_with_a_context_of_its_own_takes_the_profile_before_its_name(
    run: Run, address: str
) -> None:
    run("context", "set", "team", "--server", address, "--with-key", stdin=OTHER_KEY)
    run("context", "set", "nowhere", "--server", "127.0.0.1:1")
    run("context", "use", "nowhere")
    done = run("--context", "team", "check", "course:edit", "--token", "x", "--context", "{}")
    assert done.status == 1
    assert "TOKEN_MALFORMED" in done.out


def test_the_file_is_for_its_owner_alone_and_one_that_others_may_read_is_refused(
    run: Run, address: str, file: Path
) -> None:
    old = os.umask(0)
    try:
        run("context", "set", "team", "--server", address, "--with-key", stdin=KEY)
    finally:
        os.umask(old)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [path.name for path in file.parent.iterdir()] == ["profiles.json"]
    for mode in (0o640, 0o604, 0o620, 0o602):
        file.chmod(mode)
        refused = run("whoami")
        assert (refused.status, refused.out) == (2, "")
        assert f"chmod 600 {file}" in refused.err
        assert run("context", "set", "x").status == 2, "and it is not replaced"
    file.chmod(0o600)
    assert run("whoami").status == 0
    if os.geteuid() == 0:
        os.chown(file, 65534, 65534)
        assert "belongs to another user" in run("whoami").err


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"profiles": {"x": {"serve": "y"}}}',
        '{"profiles": {"x": {"api_key": 1}}}',
        '{"profiles": {}, "current": "x"}',
        '{"profiles": {"x": {"api_key": "pdp_secret"}}, "current": []}',
    ],
)
def test_a_damaged_file_is_an_error_that_does_not_repeat_it(
    run: Run, file: Path, text: str
) -> None:
    file.parent.mkdir(parents=True)
    file.touch(0o600)
    file.write_text(text)
    done = run("whoami")
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert "is not a file of profiles" in done.err
    assert "pdp_secret" not in done.err


def test_a_fifo_in_place_of_the_file_does_not_block(run: Run, file: Path) -> None:
    file.parent.mkdir(parents=True)
    os.mkfifo(file, 0o600)
    assert "is not a regular file" in run("whoami").err


def test_a_key_on_the_command_line_is_warned_about_and_not_repeated(run: Run, address: str) -> None:
    """`ps` shows it: the options and the file of profiles do not."""
    done = run("whoami", "--server", address, "--api-key", KEY)
    assert done.status == 0
    assert "other users of this machine see --api-key" in done.err
    assert KEY not in done.out + done.err
    spaced = run("whoami", "--server", address, "--api-key", "pdp_a secret\n")
    assert spaced.status == 2
    assert "secret" not in spaced.err


def test_a_key_from_a_profile_is_in_no_list_of_processes(
    server: ServerProcess, address: str, tmp_path: Path
) -> None:
    import subprocess

    environment = {
        name: value for name, value in server.environment.items() if not name.startswith("PDP_")
    } | {"XDG_CONFIG_HOME": str(tmp_path)}
    made = subprocess.Popen(
        [*PDP, "context", "set", "team", "--server", address, "--with-key"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    shown = Path(f"/proc/{made.pid}/cmdline").read_bytes()
    out, _ = made.communicate(KEY, timeout=60)
    assert KEY.encode() not in shown
    assert KEY not in out
    assert made.returncode == 0
    assert KEY in (tmp_path / "pdp" / "profiles.json").read_text()
