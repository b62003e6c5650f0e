"""`pdp grant`, `pdp revoke` and `pdp user`: what Check answers follows."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.cli.running import Run
from tests.kit.school import ask, reason_of
from tests.kit.server import ServerProcess, Stubs
from tests.kit.waiting import eventually


@pytest.fixture
def stubs(school: tuple[ServerProcess, Stubs]) -> Stubs:
    return school[1]


def is_answered(stubs: Stubs, permission: str, reason: str) -> None:
    eventually(lambda: reason_of(ask(stubs, "user_sam", permission)) == reason)


def test_a_grant_allows_and_its_revocation_denies(at: Run, stubs: Stubs) -> None:
    is_answered(stubs, "course:edit", "PERMISSION_NOT_GRANTED")
    place = ("ADMIN", "--user", "user_sam", "--organization", "org_school")
    granted = at("grant", *place)
    assert granted.status == 0
    assert granted.out.startswith("granted ADMIN to user_sam in org_school: g-")
    is_answered(stubs, "course:edit", "ALLOWED_BY_RULE")
    assert at("grant", *place).status == 2, "it is there already"
    revoked = at("revoke", *place)
    assert revoked.status == 0
    assert revoked.out.startswith("revoked ADMIN to user_sam in org_school: g-")
    is_answered(stubs, "course:edit", "PERMISSION_NOT_GRANTED")


def test_a_revocation_takes_exactly_the_scope_that_is_named(at: Run) -> None:
    assert at("grant", "STUDENT", "--user", "user_ada", "--resource", "course:latin").status == 0
    everywhere = at("revoke", "STUDENT", "--user", "user_ada")
    assert everywhere.status == 2
    assert everywhere.err == (
        "pdp: there is no grant of STUDENT to user_ada everywhere; "
        "there is STUDENT to user_ada on course:latin\n"
    )
    other = at("revoke", "STUDENT", "--user", "user_ada", "--organization", "org_school")
    assert other.status == 2
    assert at("revoke", "STUDENT", "--user", "user_ada", "--resource", "course:latin").status == 0
    gone = at("revoke", "STUDENT", "--user", "user_ada", "--resource", "course:latin")
    assert (gone.status, "there is" in gone.err.partition(";")[2]) == (2, False)


@pytest.mark.parametrize(
    ("until", "length"),
    [
        ("30m", timedelta(minutes=30)),
        ("12h", timedelta(hours=12)),
        ("3d", timedelta(days=3)),
        ("2w", timedelta(weeks=2)),
    ],
)
def test_a_grant_ends_when_it_was_said(
    at: Run, stubs: Stubs, until: str, length: timedelta
) -> None:
    from pdpapi.v1.administration_service_pb2 import DeleteGrantRequest, GetGrantRequest

    before = datetime.now(UTC)
    done = at("grant", "ADMIN", "--user", "user_ivan", "--until", until)
    after = datetime.now(UTC)
    assert done.status == 0
    assert " everywhere until " in done.out
    id_ = done.out.split(": ")[1].split()[0]
    stored = stubs.administration.GetGrant(GetGrantRequest(id=id_), timeout=10).grant
    end = stored.expires_at.ToDatetime(UTC)
    assert before + length - timedelta(seconds=1) <= end <= after + length
    stubs.administration.DeleteGrant(DeleteGrantRequest(id=id_), timeout=10)


@pytest.mark.parametrize(
    ("until", "error"),
    [
        ("2000-01-01T00:00:00Z", "is in the past"),
        ("2030-01-01T00:00:00", "neither a duration"),
        ("tomorrow", "neither a duration"),
        ("0d", "neither a duration"),
        ("-1d", "neither a duration"),
        ("999999w", "neither a duration"),
        ("2W", "neither a duration"),
        ("\u0662w", "neither a duration"),
    ],
)
def test_an_end_that_is_none_grants_nothing(at: Run, until: str, error: str) -> None:
    done = at("grant", "ADMIN", "--user", "user_sam", f"--until={until}")
    assert (done.status, done.out) == (2, "")
    assert error in done.err
    assert at("get", "grants", "--user", "user_sam", "--role", "ADMIN", "-o", "name").out == ""


def test_a_grant_has_one_scope_and_a_role_that_exists(at: Run) -> None:
    both = at("grant", "ADMIN", "--user", "u", "--organization", "o", "--resource", "course:x")
    assert "exclude each other" in both.err
    unknown = at("grant", "NOBODY", "--user", "user_sam")
    assert unknown.status == 2
    assert len(unknown.err.splitlines()) == 1


def test_a_disabled_user_is_refused_until_enabled_and_keeps_everything_else(
    at: Run, stubs: Stubs
) -> None:
    before = at("get", "user", "user_sam", "-o", "json").out
    assert at("user", "disable", "user_sam").out.startswith("user_sam is disabled from revision ")
    is_answered(stubs, "course:view", "ACTOR_DISABLED")
    assert at("user", "disable", "user_sam").out == "user_sam is disabled already\n"
    assert at("user", "enable", "user_sam").out.startswith("user_sam is active from revision ")
    is_answered(stubs, "course:view", "ALLOWED_BY_RULE")
    assert at("get", "user", "user_sam", "-o", "json").out == before
    assert at("user", "disable", "nobody").status == 2
