"""Settings: closed by default, and each refusal says which setting."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pdp.settings import DatabaseSettings, Settings, SidecarSettings, is_loopback_address

ISSUER = "https://clerk.example.test"
DIGEST = "0" * 64


def settings(**values: Any) -> Settings:
    return Settings.load(None, **{"issuers": ISSUER, **values})


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("PDP_CONFIG", "PDP_ISSUERS"):
        monkeypatch.delenv(name, raising=False)


def test_without_an_issuer_nothing_starts() -> None:
    """OpenFGA CVE-2026-55689: a check that was not configured was silently skipped."""
    with pytest.raises(ValidationError, match="issuers"):
        Settings.load()
    with pytest.raises(ValidationError, match="issuers"):
        Settings.load(issuers="")


def test_issuers_may_be_urls_separated_by_commas_or_a_json_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PDP_ISSUERS", "https://a.test, https://b.test")
    assert [issuer.issuer for issuer in Settings.load().issuers] == [
        "https://a.test",
        "https://b.test",
    ]
    monkeypatch.setenv("PDP_ISSUERS", '[{"issuer": "https://c.test", "audience": "x"}]')
    assert Settings.load().issuers[0].audience == "x"


@pytest.mark.parametrize(
    "issuer",
    [
        "http://clerk.example.test",
        "file:///etc/passwd",
        "https://",
        "https://user:pw@clerk.test",
        "https://clerk.test/",
        "https://clerk.test?x=1",
        "clerk.test",
    ],
)
def test_an_issuer_that_is_no_plain_https_url_is_refused(issuer: str) -> None:
    """GHSA-993g-76c3-p5m4, Rekor CVE-2026-24117: other schemes and targets."""
    with pytest.raises(ValidationError, match="issuers"):
        settings(issuers=[{"issuer": issuer}])


@pytest.mark.parametrize("skew", ["nan", "inf", -1, 31, 10**9])
def test_a_clock_skew_out_of_bounds_is_refused(skew: object) -> None:
    with pytest.raises(ValidationError, match="clock_skew_seconds"):
        settings(clock_skew_seconds=skew)


def test_a_configured_skew_of_zero_stays_zero() -> None:
    assert settings(clock_skew_seconds=0).clock_skew_seconds == 0


def test_beyond_loopback_callers_must_authenticate_over_tls() -> None:
    with pytest.raises(ValidationError, match="no callers"):
        settings(listen="0.0.0.0:50051")
    caller = {"name": "a", "api_key_sha256": DIGEST}
    with pytest.raises(ValidationError, match="in clear"):
        settings(listen="[::]:50051", callers=[caller])
    tls = {"certificate_file": "c", "private_key_file": "k"}
    settings(listen="0.0.0.0:50051", callers=[caller], tls=tls)
    settings(listen="0.0.0.0:50051", insecure=True)


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/run/pdp.sock", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("localhost.example.test:1", False),
        ("127.0.0.1.example.test:1", False),
        (":1", False),
    ],
)
def test_what_counts_as_loopback(address: str, loopback: bool) -> None:
    assert is_loopback_address(address) is loopback


def test_a_caller_proves_itself_in_exactly_one_way() -> None:
    with pytest.raises(ValidationError, match="either api_key_sha256 or spiffe_id"):
        settings(callers=[{"name": "a"}])
    with pytest.raises(ValidationError, match="client_ca_file"):
        settings(callers=[{"name": "a", "spiffe_id": "spiffe://t/a"}])


def test_names_of_callers_and_issuers_differ() -> None:
    one = {"name": "a", "api_key_sha256": DIGEST}
    with pytest.raises(ValidationError, match="names must differ"):
        settings(callers=[one, one])
    with pytest.raises(ValidationError, match="named once"):
        settings(issuers=f"{ISSUER},{ISSUER}")


@pytest.mark.parametrize("proof", ["api_key_sha256", "spiffe_id"])
def test_two_callers_with_one_key_or_certificate_are_refused(proof: str) -> None:
    value = {"api_key_sha256": DIGEST, "spiffe_id": "spiffe://t/a"}[proof]
    callers = [{"name": "billing", proof: value}, {"name": "admin", proof: value}]
    tls = {"certificate_file": "c", "private_key_file": "k", "client_ca_file": "a"}
    with pytest.raises(ValidationError, match=f"billing and admin have the same {proof}") as error:
        settings(callers=callers, tls=tls)
    assert value not in str(error.value.errors(include_input=False)[0]["msg"])
    with pytest.raises(ValidationError, match="billing and admin"):
        SidecarSettings.load(None, upstreams="127.0.0.1:1", callers=callers, tls=tls)


DEVELOPMENT = [
    "https://able-newt-1.clerk.accounts.dev",
    "https://ABLE-newt-1.clerk.Accounts.dev",
    "https://able-newt-1.clerk.accounts.dev.",
    "https://clerk.able.newt-1.lcl.dev",
    "https://able-newt-1.accounts.lclclerk.com",
    "https://able-newt-1.clerk.accountsstage.dev",
    "https://clerk.x.stg.dev",
    "http://localhost/pdp-development",
    "http://127.0.0.1:9000",
]


@pytest.mark.parametrize("issuer", DEVELOPMENT)
def test_a_development_issuer_beside_one_of_production_is_refused_unless_allowed(
    issuer: str,
) -> None:
    """Anyone who signs up at the development instance could be any user of production."""
    both = [{"issuer": ISSUER}, {"issuer": issuer}]
    for issuers in (both, both[::-1]):
        with pytest.raises(ValidationError, match="allow_development_issuers"):
            settings(issuers=issuers)
        settings(issuers=issuers, allow_development_issuers=True)
    settings(issuers=[{"issuer": issuer}, {"issuer": "https://other.clerk.accounts.dev"}])


def test_keys_of_a_development_instance_for_an_issuer_of_production_are_refused() -> None:
    keys = "https://able-newt-1.clerk.accounts.dev/.well-known/jwks.json"
    with pytest.raises(ValidationError, match="able-newt-1"):
        settings(issuers=[{"issuer": ISSUER, "jwks_url": keys}])
    settings(issuers=[{"issuer": ISSUER, "jwks_url": "http://127.0.0.1:9000/jwks.json"}])


@pytest.mark.parametrize(
    "issuer",
    ["https://clerk.accounts.dev.example.com", "https://myaccounts.dev", "https://clerk.dev"],
)
def test_a_production_host_that_only_looks_like_development_is_production(issuer: str) -> None:
    settings(issuers=[{"issuer": ISSUER}, {"issuer": issuer}])


def test_variables_win_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('threads = 3\nprocesses = 2\n[[issuers]]\nissuer = "https://f.test"\n')
    monkeypatch.setenv("PDP_THREADS", "5")
    loaded = Settings.load(file)
    assert (loaded.threads, loaded.processes) == (5, 2)
    assert loaded.issuers[0].issuer == "https://f.test"


def test_a_named_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Settings.load(tmp_path / "nothing.toml")


def test_an_unknown_setting_in_the_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('isuers = "x"\n')
    with pytest.raises(ValidationError, match="isuers"):
        Settings.load(file, issuers=ISSUER)


def test_the_database_url_does_not_show() -> None:
    """SpiceDB CVE-2023-46255: the database URL in the log."""
    loaded = DatabaseSettings.load(None, database_url="postgresql://pdp:hunter2@db/pdp")
    assert "hunter2" not in f"{loaded!r}{loaded}"


@pytest.mark.parametrize(
    "value", ["50051", "127.0.0.1", ":1", "127.0.0.1:x", "127.0.0.1:65536", ""]
)
def test_an_address_that_is_none_is_named_as_such(value: str) -> None:
    with pytest.raises(ValidationError, match="must be host:port"):
        settings(listen=value)
    with pytest.raises(ValidationError, match="must be host:port"):
        settings(http_listen=value)


SECRET = "whsec_" + "c2VjcmV0" * 4
OTHER_SECRET = "whsec_" + "b3RoZXIh" * 4


@pytest.mark.parametrize(
    "text",
    [f"{SECRET},{OTHER_SECRET}", f" {SECRET} , {OTHER_SECRET}", f'["{SECRET}","{OTHER_SECRET}"]'],
)
def test_webhook_secrets_may_be_separated_by_commas_or_a_json_list(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("PDP_CLERK__INSTANCE_ID", "ins_1")
    monkeypatch.setenv("PDP_CLERK__WEBHOOK_SECRETS", text)
    found = [
        webhook_secret.get_secret_value() for webhook_secret in settings().clerk.webhook_secrets
    ]
    assert found == [SECRET, OTHER_SECRET]


@pytest.mark.parametrize(
    ("clerk", "said"),
    [
        ({"webhook_secrets": [SECRET]}, "instance_id"),
        ({"instance_id": "ins_1", "webhook_secrets": "whsec_short"}, "webhook_secrets"),
        ({"instance_id": "ins_1", "webhook_secrets": f"['{SECRET}']"}, "webhook_secrets"),
        ({"instance_id": "2abc"}, "instance_id"),
        ({"secret_key": "sk_test_ofafile\n"}, "secret_key"),
        ({"secret_key": "sk_test_\u00e4"}, "secret_key"),
        ({"secret_key": ""}, "secret_key"),
        ({"instance_id": "ins_1", "push_claims": True}, "secret_key"),
        ({"instance_id": "ins_1", "reconcile_seconds": 900}, "secret_key"),
        ({"secret_key": "sk_test_1", "push_claims": True}, "instance_id"),
        ({"secret_key": "sk_test_1", "reconcile_seconds": 900}, "instance_id"),
        ({"api_url": "http://api.clerk.com/v1"}, "api_url"),
        # The doctor prints the address, and so must not print what would be in it.
        ({"api_url": "https://user:word@api.clerk.com/v1"}, "api_url"),
        ({"api_url": "https:///v1"}, "api_url"),
        ({"instanceid": "ins_1"}, "instanceid"),
    ],
)
def test_what_does_not_do_for_clerk_is_named_and_no_secret_repeated(
    clerk: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        settings(clerk=clerk)
    shown = str(caught.value.errors(include_url=False, include_input=False, include_context=False))
    assert said in shown
    assert not any(secret in shown for secret in (SECRET, "short", "sk_test_1", "ofafile"))


def test_a_variable_that_is_no_json_is_named_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PDP_CLERK", "{secret_key: sk_test_1}")
    with pytest.raises(ValueError, match=r'"clerk".*JSON') as caught:
        settings()
    assert "sk_test_1" not in str(caught.value)


def test_the_console_is_off_by_default_and_its_address_follows_from_loopback() -> None:
    assert settings().console.listen is None
    with pytest.raises(ValueError, match=r"set console\.listen"):
        _ = settings().console.address
    assert settings(console={"listen": "127.0.0.1:9000"}).console.address == "http://127.0.0.1:9000"
    named = {"listen": "127.0.0.1:9000", "origin": "https://console.example.com"}
    assert settings(console=named).console.address == "https://console.example.com"


@pytest.mark.parametrize(
    ("console", "problem"),
    [
        ({"listen": "0.0.0.0:9000"}, "set origin"),
        ({"listen": "0.0.0.0:9000", "origin": "https://c.example"}, "cross in clear"),
        ({"listen": "127.0.0.1:0"}, "a port of its own"),
        ({"listen": "unix:/tmp/x"}, "host:port"),
        ({"listen": "127.0.0.1:1", "origin": "http://c.example"}, "https"),
        ({"listen": "127.0.0.1:1", "origin": "https://c.example/path"}, "scheme and a lower-case"),
        ({"listen": "127.0.0.1:1", "origin": "https://C.example"}, "scheme and a lower-case"),
        ({"listen": "127.0.0.1:1", "sign_in_url": "javascript:alert(1)"}, "https"),
        ({"listen": "127.0.0.1:1", "cookie": "x"}, "cookie"),
    ],
)
def test_a_console_that_would_not_be_safe_is_refused(console: dict[str, str], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        settings(console=console)
