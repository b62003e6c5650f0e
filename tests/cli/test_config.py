"""`pdp config check`: each setting, its value, and where it comes from; never a secret."""

from pathlib import Path

import pytest

from tests.cli.running import Run

SECRETS = {
    "PDP_DATABASE_URL": "postgresql://pdp:hunter2@db.internal/pdp",
    "PDP_CLERK__SECRET_KEY": "sk_live_hunter2",
    "PDP_CLERK__WEBHOOK_SECRETS": "whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMg==",
    "PDP_CLERK__INSTANCE_ID": "ins_1",
}
FILE = """
listen = "127.0.0.1:7001"
[[issuers]]
issuer = "https://clerk.example.test"
[[callers]]
name = "backend"
api_key_sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
[clerk]
provisioning = true
"""


@pytest.fixture(autouse=True)
def in_a_directory_with_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pdp.toml").write_text(FILE)


def rows(out: str) -> dict[str, tuple[str, str]]:
    found = {}
    for line in out.splitlines()[1:-1]:
        cells = [cell.strip() for cell in line.split("  ") if cell.strip()]
        found[cells[0]] = (cells[1], cells[2])
    return found


def test_each_setting_has_its_value_and_its_source(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pdp.settings import Settings

    monkeypatch.setenv("PDP_HTTP_LISTEN", "127.0.0.1:7002")
    monkeypatch.setenv("PDP_CLERK", '{"default_role": "STUDENT"}')
    done = run("config", "check")
    assert done.status == 0
    assert done.out.endswith("`pdp serve` accepts these settings\n")
    shown = rows(done.out)
    assert shown["listen"] == ("127.0.0.1:7001", "pdp.toml")
    assert shown["http_listen"] == ("127.0.0.1:7002", "variable PDP_HTTP_LISTEN")
    assert shown["threads"] == ("32", "default")
    assert shown["issuers[0].issuer"] == ("https://clerk.example.test", "pdp.toml")
    assert shown["callers[0].may"] == ("decide", "pdp.toml")
    assert shown["clerk.provisioning"] == ("true", "pdp.toml")
    assert shown["clerk.default_role"] == ("STUDENT", "variable PDP_CLERK")
    tops = {name.partition(".")[0].partition("[")[0] for name in shown}
    assert tops == set(Settings.model_fields)


def test_no_secret_is_shown_from_a_variable_or_from_the_file(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    done = run("config", "check")
    assert done.status == 0
    shown = rows(done.out)
    assert shown["database_url"] == (
        "postgresql://pdp@db.internal/pdp",
        "variable PDP_DATABASE_URL",
    )
    assert shown["clerk.secret_key"] == ("set, not shown", "variable PDP_CLERK__SECRET_KEY")
    assert shown["clerk.webhook_secrets"][0] == "set, not shown"
    assert shown["callers[0].api_key_sha256"][0] == "set, not shown"
    for secret in ("hunter2", "aHVudGVy", "0123456789abcdef"):
        assert secret not in done.out + done.err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PDP_CLERK__WEBHOOK_SECRETS", "whsec_hunter2"),
        ("PDP_CLERK", '{"secret_key": "sk hunter2"}'),
        ("PDP_CLERK", '{"secret_key": "hunter2"'),
        ("PDP_CALLERS", '[{"name": "x", "api_key_sha256": "hunter2"}]'),
        ("PDP_DATABASE_URL", "nosuch://pdp:hunter2@db/pdp"),
        ("PDP_PROCESSES", "hunter2"),
    ],
)
def test_an_invalid_setting_is_an_error_that_does_not_repeat_its_value(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    done = run("config", "check")
    assert done.status == 2
    assert done.err.startswith("pdp: ")
    assert "accepts" not in done.out
    assert "hunter2" not in done.out + done.err


def test_what_the_program_would_refuse_is_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDP_TLS__CERTIFICATE_FILE", "none.pem")
    monkeypatch.setenv("PDP_TLS__PRIVATE_KEY_FILE", "none.key")
    missing = run("config", "check")
    assert (missing.status, "none.pem" in missing.err) == (2, True)
    monkeypatch.setenv("PDP_LISTNE", "x")
    misspelled = run("config", "check")
    assert misspelled.status == 2
    assert "did you mean PDP_LISTEN?" in misspelled.err


def test_the_settings_of_the_sidecar_are_shown_too(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDP_SIDECAR_UPSTREAMS", "127.0.0.1:50051")
    monkeypatch.setenv("PDP_SIDECAR_API_KEY", "pdp_hunter2")
    done = run("config", "check", "sidecar")
    assert done.status == 0
    assert "hunter2" not in done.out
    assert rows(done.out)["upstreams"] == ("127.0.0.1:50051", "variable PDP_SIDECAR_UPSTREAMS")
