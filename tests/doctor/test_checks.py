"""The checkup: its findings, the fixes that it names, and what it never shows."""

import base64
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pdp.administrator import Administrator
from pdp.clerk.directory import Directory
from pdp.clerk.observations import DeletionSeen, UserSeen
from pdp.database.engine import open_engine
from pdp.doctor.checks import examine
from pdp.doctor.findings import Finding, Verdict
from pdp.facts import Store
from pdp.facts.store.clerk_objects import ClerkKind
from pdp.model import (
    Effect,
    Grant,
    InOrganization,
    Membership,
    Permission,
    Role,
    Rule,
    ToOrganizationRole,
    ToUser,
    User,
    UserStatus,
)
from pdp.settings import Settings
from tests.kit.clerk.api_server import SECRET_KEY, Answer, ClerkApiServer
from tests.kit.identity.key_server import KeyServer, Mode
from tests.kit.tokens import ISSUER, PARTY, session_token, signing_key

KEY = signing_key()
OTHER = signing_key("other")
SECRETS = ["whsec_" + base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2)]
SOUND = {
    "instance_id": KEY.kid,
    "webhook_secrets": SECRETS[:1],
    "reconcile_seconds": 900,
    "secret_key": SECRET_KEY,
}


@pytest.fixture(scope="module")
def clerk() -> Iterator[ClerkApiServer]:
    with ClerkApiServer(instance_id=KEY.kid) as server:
        yield server


@pytest.fixture(scope="module")
def shared_keys() -> Iterator[KeyServer]:
    with KeyServer() as server:
        yield server


@pytest.fixture
def keys(shared_keys: KeyServer) -> KeyServer:
    shared_keys.keys, shared_keys.mode = [KEY.jwk()], Mode.KEYS
    return shared_keys


@pytest.fixture
def administrator(sqlite_url: str) -> Administrator:
    return Administrator(Store(open_engine(sqlite_url)), on_write=lambda _: None)


@pytest.fixture
def directory(sqlite_url: str) -> Directory:
    return Directory(Store(open_engine(sqlite_url)), on_write=lambda _: None)


class Checkup:
    """Settings that hold, to be spoiled one by one."""

    def __init__(self, keys: KeyServer, clerk: ClerkApiServer, url: str) -> None:
        self.issuer = keys.issuer
        self.values: dict[str, Any] = {
            "issuers": [{"issuer": keys.issuer, "authorized_parties": [PARTY]}],
            "database_url": url,
        }
        self.clerk: dict[str, Any] = {**SOUND, "api_url": clerk.url}
        self.seconds_ahead = 0.0

    def findings(self, token: str | None = None) -> list[Finding]:
        settings = Settings(**self.values, clerk=self.clerk)
        return list(examine(settings, token, lambda: time.time() + self.seconds_ahead))

    def of(self, subject: str, token: str | None = None) -> Finding:
        """The last finding about a subject."""
        return [finding for finding in self.findings(token) if finding.subject == subject][-1]

    def bad(self, token: str | None = None) -> dict[str, Verdict]:
        found = self.findings(token)
        return {
            finding.subject: finding.verdict
            for finding in found
            if finding.verdict is not Verdict.OK
        }

    def token(self, **arguments: Any) -> str:
        now = time.time() + self.seconds_ahead
        return session_token(**{"now": now, "issuer": self.issuer, **arguments})


@pytest.fixture
def checkup(keys: KeyServer, clerk: ClerkApiServer, sqlite_url: str) -> Checkup:
    return Checkup(keys, clerk, sqlite_url)


def test_a_sound_configuration_has_nothing_to_complain_of(
    checkup: Checkup, administrator: Administrator
) -> None:
    administrator.create(User("user_1"))
    administrator.create(Membership("org_a", "user_1", "org:member"))
    administrator.create(Role("NEW_USER"))
    checkup.clerk["default_role"] = "NEW_USER"
    findings = checkup.findings(checkup.token(organization_id="org_a"))
    assert {finding.verdict for finding in findings} == {Verdict.OK}
    assert {finding.subject for finding in findings} >= {
        "database",
        f"issuer {checkup.issuer}",
        "clerk.instance_id",
        "clerk.secret_key",
        "clock",
        "clerk.webhook_secrets",
        "clerk.reconcile_seconds",
        "clerk.default_role",
        "token",
        "user user_1",
        "organization org_a",
    }


# --- settings -------------------------------------------------------------------------------------


def test_a_database_that_is_not_there_or_not_migrated_is_found(
    checkup: Checkup, tmp_path: Path
) -> None:
    for url, said in (
        (f"sqlite:///{tmp_path}/none.db", "not there"),
        ("postgresql://pdp:hunter2@127.0.0.1:1/pdp", "does not answer"),
        ("nosuch://pdp:hunter2@db", "must start with"),
    ):
        checkup.values["database_url"] = url
        found = checkup.of("database")
        assert (found.verdict, said in found.message) == (Verdict.FAILED, True)
        assert "hunter2" not in str(checkup.findings(checkup.token()))


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        (Mode.ERROR, "500"),
        (Mode.HTML, "not a JSON"),
        (Mode.REDIRECT, "302"),
        (Mode.TRICKLE_HEADERS, "took more than 2 s"),
    ],
)
def test_an_issuer_without_a_key_set_is_found(
    checkup: Checkup, keys: KeyServer, mode: Mode, said: str
) -> None:
    keys.mode = mode
    found = checkup.of(f"issuer {checkup.issuer}")
    assert found.verdict is Verdict.FAILED
    assert said in found.message
    assert keys.jwks_url in found.message


def test_an_issuer_that_is_out_of_reach_is_found(checkup: Checkup) -> None:
    checkup.values["issuers"] = [{"issuer": "http://127.0.0.1:9", "authorized_parties": [PARTY]}]
    assert "cannot be reached" in checkup.of("issuer http://127.0.0.1:9").message


def test_ignored_keys_are_named_with_their_reason(checkup: Checkup, keys: KeyServer) -> None:
    keys.keys = [KEY.jwk(), OTHER.jwk(alg="RS512")]
    found = checkup.of(f"issuer {checkup.issuer}")
    assert found.verdict is Verdict.WARNING
    assert found.message == f"the key {OTHER.kid} is ignored: made for another algorithm"
    keys.keys = [OTHER.jwk(alg="RS512")]
    assert checkup.bad()[f"issuer {checkup.issuer}"] is Verdict.WARNING
    assert any("holds no usable key" in finding.message for finding in checkup.findings())


def test_a_pem_key_is_parsed(checkup: Checkup, tmp_path: Path) -> None:
    issuer = {"issuer": ISSUER, "authorized_parties": [PARTY]}
    for key, verdict in (
        ({"public_key": KEY.public_pem}, Verdict.OK),
        ({"public_key": "-----BEGIN"}, Verdict.FAILED),
        ({"public_key_file": str(tmp_path / "none.pem")}, Verdict.FAILED),
    ):
        checkup.values["issuers"] = [issuer | key]
        token = checkup.token(issuer=ISSUER)
        assert checkup.of(f"issuer {ISSUER}", token).verdict is verdict
        assert checkup.of("token", token).verdict is verdict
        # No key set has given the time: the Backend API is asked.
        assert checkup.of("clock").verdict is Verdict.OK


def test_another_instance_than_the_issuers_is_found(
    checkup: Checkup, clerk: ClerkApiServer
) -> None:
    """The kid of a Clerk key is the instance's id."""
    checkup.clerk["instance_id"] = OTHER.kid
    found = checkup.bad()
    assert found["clerk.instance_id"] is Verdict.FAILED
    assert found["clerk.secret_key"] is Verdict.FAILED
    for name in ("instance_id", "webhook_secrets", "reconcile_seconds"):
        del checkup.clerk[name]
    advised = checkup.of("clerk.instance_id")
    assert advised.verdict is Verdict.WARNING
    assert KEY.kid in advised.advice


def test_authorized_parties_are_asked_for(checkup: Checkup) -> None:
    checkup.values["issuers"] = [{"issuer": checkup.issuer}]
    found = checkup.of(f"issuer {checkup.issuer}")
    assert found.verdict is Verdict.WARNING
    assert "authorized_parties" in found.message


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [
        (-20, Verdict.FAILED),
        (-4, Verdict.WARNING),
        (0, Verdict.OK),
        (4.5, Verdict.WARNING),
        (20, Verdict.FAILED),
    ],
)
def test_a_clock_that_is_wrong_is_found(checkup: Checkup, seconds: float, verdict: Verdict) -> None:
    checkup.seconds_ahead = seconds
    found = checkup.of("clock")
    assert found.verdict is verdict
    assert seconds == 0 or ("ahead" in found.message) == (seconds > 0)


def test_webhook_secrets_are_counted_and_distinguished(checkup: Checkup) -> None:
    checkup.clerk["webhook_secrets"] = SECRETS
    assert "rotation" in checkup.of("clerk.webhook_secrets").message
    checkup.clerk["webhook_secrets"] = [SECRETS[0], SECRETS[0].removeprefix("whsec_")]
    assert checkup.bad() == {"clerk.webhook_secrets": Verdict.WARNING}
    checkup.clerk["webhook_secrets"] = []
    assert checkup.bad() == {"clerk.webhook_secrets": Verdict.WARNING}


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("pk_test_abcdefgh", "publishable"),
        ("whatever_it_is", "not of the form"),
        ("sk_test_anotherkeyofthetests", "does not accept the secret key"),
    ],
)
def test_a_secret_key_that_does_not_work_is_found_and_not_repeated(
    checkup: Checkup, key: str, said: str
) -> None:
    checkup.clerk["secret_key"] = key
    found = checkup.of("clerk.secret_key")
    assert found.verdict is Verdict.FAILED
    assert said in found.message
    assert key not in str(checkup.findings())


def test_an_api_that_does_not_answer_is_found(checkup: Checkup, clerk: ClerkApiServer) -> None:
    clerk.answer_next(Answer(503), path="/instance")
    assert "HTTP 503" in checkup.of("clerk.secret_key").message


def test_a_development_key_beside_a_production_issuer_is_a_warning(checkup: Checkup) -> None:
    pem = {"public_key": KEY.public_pem, "authorized_parties": [PARTY]}
    checkup.values["issuers"] = [{"issuer": ISSUER, **pem}]
    assert checkup.bad() == {"clerk.secret_key": Verdict.WARNING}
    checkup.values["issuers"] = [{"issuer": "https://able-newt-1.clerk.accounts.dev", **pem}]
    assert checkup.bad() == {}


def test_a_default_role_that_does_not_exist_is_found(checkup: Checkup) -> None:
    checkup.clerk["default_role"] = "NOBODY"
    assert checkup.bad() == {"clerk.default_role": Verdict.FAILED}


def test_grants_of_the_console_without_effect_are_found(
    checkup: Checkup, administrator: Administrator
) -> None:
    checkup.values["console"] = {"listen": "127.0.0.1:8090"}
    assert "nobody can sign in" in checkup.of("console").message
    administrator.create(Permission("console:review"))
    administrator.create(Role("ALL"))
    administrator.create(Rule("all", "ALL", Effect.ALLOW, "*"))
    administrator.create(Role("ANALYST"))
    administrator.create(Rule("review", "ANALYST", Effect.ALLOW, "console:review"))
    administrator.create(Role("LEAD", "", ("ANALYST",)))
    administrator.create(User("user_1"))
    administrator.create(Grant("wide", "ALL", ToUser("user_1")))
    assert "nobody can sign in" in checkup.of("console").message
    administrator.create(Grant("narrow", "LEAD", ToUser("user_1"), InOrganization("org_a")))
    administrator.create(Grant("members", "ANALYST", ToOrganizationRole("org:admin")))
    messages = [finding.message for finding in checkup.findings() if finding.subject == "console"]
    assert messages[0] == "grants without effect: members, narrow"
    assert len(messages) == 2
    administrator.create(Grant("analyst", "LEAD", ToUser("user_1")))
    found = [finding for finding in checkup.findings() if finding.subject == "console"]
    assert [finding.verdict for finding in found] == [Verdict.WARNING]
    administrator.delete(Grant, ("narrow",))
    administrator.delete(Grant, ("members",))
    assert checkup.of("console").verdict is Verdict.OK


def test_ways_that_do_not_fit_together_are_warned_of(checkup: Checkup) -> None:
    checkup.clerk["reconcile_seconds"] = 0
    assert checkup.bad() == {"clerk.reconcile_seconds": Verdict.WARNING}
    checkup.clerk |= {"webhook_secrets": [], "push_claims": True}
    assert checkup.bad().keys() == {"clerk", "clerk.webhook_secrets", "clerk.push_claims"}


# --- a token --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"issuer": "https://clerk.other.test"}, ("ISSUER_MISMATCH", "https://clerk.other.test")),
        ({"claims": {"azp": "https://evil.test"}}, ("PARTY_NOT", "https://evil.test", PARTY)),
        ({"without": ["azp"]}, ("PARTY_MISSING", "azp found: null", PARTY, "Origin")),
        ({"now": 1.7e9}, ("TOKEN_EXPIRED", "It expired ")),
        ({"now": 1e11}, ("NOT_YET_VALID", "It begins to be valid in ")),
        ({"claims": {"exp": 1e11}}, ("LIFETIME_TOO_LONG", "is 3600")),
        ({"key": OTHER}, ("KEY_UNKNOWN", f'"{OTHER.kid}"', f'["{KEY.kid}"]')),
        ({"header": {"kid": KEY.kid}, "key": OTHER}, ("SIGNATURE_INVALID",)),
        ({"header": {"alg": "HS256"}}, ("ALGORITHM_NOT_ALLOWED", '"HS256"')),
        ({"claims": {"sub": "mch_1"}}, ("NOT_A_SESSION", '"mch_1"')),
        ({"claims": {"sts": "pending"}}, ("SESSION_PENDING", '"pending"')),
        ({"without": ["iat"]}, ("CLAIM_INVALID", "iat: none")),
    ],
)
def test_a_refused_token_is_explained(
    checkup: Checkup, arguments: dict[str, Any], said: tuple[str, ...]
) -> None:
    token = checkup.token(**arguments)
    found = checkup.of("token", token)
    assert found.verdict is Verdict.FAILED
    for part in said:
        assert part in found.message
    assert_is_not_told(token, found)


def test_the_seconds_since_a_token_expired_are_reported(checkup: Checkup) -> None:
    said = checkup.of("token", checkup.token(now=time.time() - 1000)).message
    ago = re.search(r"It expired (\d+) s ago", said)
    assert ago is not None
    assert 940 <= int(ago[1]) < 950


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", "It is empty"),
        ("Bearer {}", "begins with `Bearer`"),
        ("sk_live_averysecretkey", "Parts between dots: 1"),
        ("a.b", "Parts between dots: 2"),
        ("{}" * 40, "longer than"),
    ],
)
def test_what_is_no_token_is_described_and_not_repeated(
    checkup: Checkup, token: str, said: str
) -> None:
    token = token.replace("{}", checkup.token())
    found = checkup.of("token", token)
    assert said in found.message
    assert_is_not_told(token, found)


def test_an_audience_is_compared(checkup: Checkup) -> None:
    checkup.values["issuers"][0]["audience"] = "https://api.example.test"
    said = checkup.of("token", checkup.token(claims={"aud": "https://else.test"})).message
    assert "https://else.test" in said
    assert "https://api.example.test" in said


def test_keys_that_are_out_of_reach_are_no_refusal(checkup: Checkup) -> None:
    checkup.values["issuers"] = [{"issuer": "http://127.0.0.1:9", "authorized_parties": [PARTY]}]
    found = checkup.of("token", checkup.token(issuer="http://127.0.0.1:9"))
    assert "cannot be verified" in found.message


def test_the_token_of_another_instance_than_the_followed_one_is_warned_of(
    checkup: Checkup, keys: KeyServer
) -> None:
    keys.keys.append(OTHER.jwk())
    found = checkup.of("token", checkup.token(key=OTHER))
    assert found.verdict is Verdict.WARNING
    assert OTHER.kid in found.message


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("unknown", "not known here"),
        ("disabled", "disabled here"),
        ("barred", "banned"),
        ("deleted", "deleted at Clerk"),
    ],
)
def test_the_denial_of_a_user_is_explained(
    checkup: Checkup, administrator: Administrator, directory: Directory, what: str, said: str
) -> None:
    times = {"id": "user_1", "updated_at": 1, "noticed_at": 1}
    match what:
        case "disabled":
            administrator.create(User("user_1", status=UserStatus.DISABLED))
        case "barred":
            directory.observe([UserSeen(**times, barred=True)])
        case "deleted":
            directory.observe([DeletionSeen(**times, kind=ClerkKind.USER)])
    # Also of a token that is refused, once its signature has verified.
    for token in (checkup.token(), checkup.token(now=time.time() - 1000)):
        found = checkup.of("user user_1", token)
        assert found.verdict is Verdict.FAILED
        assert said in found.message


def test_an_ended_session_and_a_missing_membership_are_found(
    checkup: Checkup, administrator: Administrator
) -> None:
    administrator.create(User("user_1"))
    administrator.revoke_session("sess_1", "user_1")
    found = checkup.bad(checkup.token(organization_id="org_a"))
    assert found == {"session": Verdict.FAILED, "organization org_a": Verdict.FAILED}


def test_a_user_that_would_be_provisioned_is_no_failure(checkup: Checkup) -> None:
    checkup.clerk["provisioning"] = True
    found = checkup.of("user user_1", checkup.token())
    assert found.verdict is Verdict.OK
    assert "first request" in found.message


def assert_is_not_told(token: str, finding: Finding) -> None:
    """No part of a token of more than a few characters is in it."""
    for part in token.split("."):
        assert len(part) < 8 or part not in str(finding)
