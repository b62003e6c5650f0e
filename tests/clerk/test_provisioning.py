"""The first valid token of somebody unknown: what it creates, and what it can never do."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import count, permutations
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from structlog.testing import capture_logs

from pdp.administrator import Administrator
from pdp.audit import Recorder
from pdp.authorizer import Authorizer
from pdp.clerk import provisioning
from pdp.clerk.directory import Directory
from pdp.clerk.observations import Observation
from pdp.clerk.provisioning import Provisioner, token_identity_of
from pdp.database.engine import open_engine
from pdp.errors import DatabaseUnavailable
from pdp.facts import Replica, Store
from pdp.facts.store.clerk_objects import ClerkKind
from pdp.facts.store.references import find_referrers
from pdp.model import (
    Actor,
    Decision,
    Grant,
    Membership,
    Organization,
    Question,
    Reason,
    User,
    UserStatus,
    VerifiedToken,
)
from pdp.recording import Recording
from tests.kit.clerk import accounts
from tests.kit.facts.outage import Outage
from tests.kit.identity.verifiers import make_verifier
from tests.kit.sqlite import on_sqlite
from tests.kit.tokens import session_token, signing_key
from tests.kit.waiting import eventually, run

POLICY = """
permissions: [course:view, course:edit]
roles:
  STUDENT: {allow: [course:view]}
  NEW_USER: {allow: [course:edit]}
grants:
  - {role: STUDENT, organization_role: "org:member"}
"""
NEVER = 3_600.0
"""A poll interval: what was written is seen because it is asked for."""


@dataclass(frozen=True)
class Process:
    """What a serving process consists of, without its listeners."""

    engine: Engine
    store: Store
    administrator: Administrator
    clerk: Directory
    replica: Replica
    authorizer: Authorizer

    def check(self, token: str, permission: str = "course:view") -> Decision:
        """The decision now, after the replica has seen all writes."""
        rule = self.authorizer.rule
        ruling = run(rule(token, [Question(permission)], "test", self.revision()))
        return ruling.decisions[0]

    def check_at_once(self, token: str) -> Decision:
        """The decision by the facts that this process has seen."""
        return run(self.authorizer.rule(token, [Question("course:view")], "test")).decisions[0]

    def observe(self, *seen: Observation) -> None:
        """Clerk says this, by a webhook."""
        self.clerk.observe(seen)

    def revision(self) -> int:
        with self.store.read() as reader:
            return reader.revision

    def people(self, name: str = "a") -> tuple[Any, Any, Any, list[str]]:
        """User, organization, membership, and the roles that the user is granted."""
        user_id, organization_id = f"user_{name}", f"org_{name}"
        with self.store.read() as reader:
            grants = find_referrers(reader, Grant, user_id=user_id)
            return (
                reader.get(User, (user_id,)),
                reader.get(Organization, (organization_id,)),
                reader.get(Membership, (organization_id, user_id)),
                [grant.role for grant in grants],
            )


Start = Callable[..., Process]


@pytest.fixture
def start(database_url: str, tmp_path: Path) -> Iterator[Start]:
    """Starts processes on one database."""
    with ExitStack() as started:
        origins = (f"pdp-{number}" for number in count())

        def begin(*, default_role: str | None = None) -> Process:
            process = running(database_url, tmp_path, next(origins), default_role)
            return started.enter_context(process)

        yield begin


@pytest.fixture
def process(start: Start) -> Process:
    return start()


@contextmanager
def running(url: str, directory: Path, origin: str, default_role: str | None) -> Iterator[Process]:
    engine = open_engine(url)
    store = Store(engine)
    replica = Replica(store, staleness_seconds_max=60, poll_seconds=NEVER)
    administrator = Administrator(store, lambda _: replica.poke())
    clerk = Directory(store, lambda _: replica.poke(), default_role=default_role)
    administrator.apply(POLICY)
    recorder = Recorder(directory / "audit", origin)
    recorder.start()
    replica.start()
    try:
        eventually(replica.ready)
        authorizer = Authorizer(
            make_verifier(clock=time.time),
            replica,
            Recording(recorder),
            clock=time.time,
            provision=Provisioner(clerk.admit),
        )
        yield Process(engine, store, administrator, clerk, replica, authorizer)
    finally:
        replica.stop()
        recorder.stop()
        engine.dispose()


def token(name: str = "a", *, acting: bool = True, **changes: Any) -> str:
    """A session token of `user_<name>`, acting for `org_<name>` or for no organization."""
    organization = {"organization_id": f"org_{name}"} if acting else {}
    return session_token(now=time.time(), user_id=f"user_{name}", **organization | changes)


@contextmanager
def counted_writes(process: Process) -> Iterator[list[str]]:
    """The transactions that begin to write meanwhile."""
    found: list[str] = []

    def note(*arguments: object) -> None:
        if "UPDATE state SET revision=(state.revision" in str(arguments[2]):
            found.append(str(arguments[2]))

    event.listen(process.engine, "before_cursor_execute", note)
    yield found
    event.remove(process.engine, "before_cursor_execute", note)


# --- what it creates ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "claims",
    [
        {"version": 2},
        {"version": 1},
        {"version": 1, "organization_role": "member"},
    ],
)
def test_the_first_token_creates_user_organization_and_membership_and_is_decided_by_them(
    process: Process, claims: dict[str, Any]
) -> None:
    before = process.revision()
    decision = process.check(token(**claims))
    assert decision.reason is Reason.ALLOWED_BY_RULE
    assert process.revision() == before + 1
    assert process.people() == (
        User("user_a"),
        Organization("org_a", "a"),
        Membership("org_a", "user_a", "org:member"),
        [],
    )
    # From now on they are known: nothing more is written.
    with counted_writes(process) as writes:
        assert process.check(token(**claims)).reason is Reason.ALLOWED_BY_RULE
    assert writes == []


def test_a_known_user_who_acts_for_another_organization_becomes_a_member_of_it(
    process: Process,
) -> None:
    assert process.check(token(acting=False)).reason is Reason.PERMISSION_NOT_GRANTED
    assert process.people() == (User("user_a"), None, None, [])
    assert process.check(token()).reason is Reason.ALLOWED_BY_RULE
    assert process.people()[2] == Membership("org_a", "user_a", "org:member")


def test_two_hundred_first_tokens_at_once_make_one_revision(process: Process) -> None:
    """F20, a stampede: all are answered, and one of them writes."""
    before = process.revision()
    tokens = [token(claims={"jti": f"{n:016x}"}) for n in range(200)]
    ready = threading.Barrier(40)

    def ask(mine: str) -> Decision:
        ready.wait(10)
        return process.check_at_once(mine)

    with counted_writes(process) as writes, ThreadPoolExecutor(40) as pool:
        decisions = list(pool.map(ask, tokens))
    assert {decision.reason for decision in decisions} == {Reason.ALLOWED_BY_RULE}
    assert process.revision() == before + 1
    assert len(writes) == 1


def test_two_processes_that_meet_one_new_user_both_answer_and_one_creates(start: Start) -> None:
    """The one that comes second finds nothing to create, and still sees what the first created."""
    processes = [start(), start()]
    before = processes[0].revision()
    for round_ in range(10):
        ready = threading.Barrier(2)

        def ask(process: Process, name: str = f"r{round_}", ready: Any = ready) -> Decision:
            ready.wait(10)
            return process.check_at_once(token(name))

        with ThreadPoolExecutor(2) as pool:
            decisions = list(pool.map(ask, processes))
        assert {decision.reason for decision in decisions} == {Reason.ALLOWED_BY_RULE}
    assert processes[0].revision() == before + 10


def test_the_default_role_is_granted_once_and_everywhere(start: Start) -> None:
    process = start(default_role="NEW_USER")
    assert process.check(token(), "course:edit").reason is Reason.ALLOWED_BY_RULE
    assert process.people()[3] == ["NEW_USER"]
    with process.store.read() as reader:
        (grant,) = find_referrers(reader, Grant, user_id="user_a")
    process.administrator.delete(Grant, (grant.id,))
    process.observe(accounts.user("a", 5, email="a@example.test"))
    assert process.check(token(), "course:edit").reason is Reason.PERMISSION_NOT_GRANTED
    assert process.people()[3] == []


def test_a_missing_default_role_is_logged_and_stops_nothing(
    start: Start,
) -> None:
    process = start(default_role="NOBODY_MADE_IT")
    with capture_logs() as logs:
        assert process.check(token()).reason is Reason.ALLOWED_BY_RULE
    assert process.people()[3] == []
    assert [line["role"] for line in logs if line["event"] == "default_role_unknown"] == [
        "NOBODY_MADE_IT"
    ]


@pytest.mark.parametrize(
    "claims", [{"o": {"id": "org_a"}}, {"o": {"id": "org_a", "rol": "r" * 300, "slg": "\n\0"}}]
)
def test_without_a_role_that_can_be_one_nobody_becomes_a_member(
    process: Process, claims: dict[str, Any]
) -> None:
    assert process.check(token(claims=claims)).reason is Reason.MEMBERSHIP_UNKNOWN
    assert process.people() == (User("user_a"), Organization("org_a"), None, [])
    # As soon as a token says it, they are.
    assert process.check(token()).reason is Reason.ALLOWED_BY_RULE


def test_under_impersonation_the_user_is_created_and_not_the_impersonator(
    process: Process,
) -> None:
    impersonated = token(claims={"act": {"sub": "user_support", "sid": "sess_9"}})
    assert process.check(impersonated).reason is Reason.ALLOWED_BY_RULE
    assert process.people()[0] == User("user_a")
    assert process.people("support")[0] is None


# --- provisioning never overrides Clerk -----------------------------------------------------------


@on_sqlite
def test_in_any_order_of_token_and_webhooks_the_webhooks_win(process: Process) -> None:
    """Also an older `user.updated` that arrives after the token wins over it."""
    arrivals: dict[str, Callable[[str], object]] = {
        "token": lambda name: process.check(token(name)),
        "older": lambda name: process.observe(accounts.user(name, 1, email="old@example.test")),
        "newer": lambda name: process.observe(accounts.user(name, 2, email="new@example.test")),
        "place": lambda name: process.observe(
            accounts.organization(name, 1, name="The School"),
            accounts.membership(name, 1, "org:admin", born=1),
        ),
    }
    for number, order in enumerate(permutations(arrivals)):
        name = f"n{number}"
        for arrival in order:
            arrivals[arrival](name)
        user, organization, membership, _ = process.people(name)
        assert (user.email, organization.name, membership.role) == (
            "new@example.test",
            "The School",
            "org:admin",
        ), order


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    "said",
    [
        accounts.end_of(ClerkKind.USER, "user_a", 2),
        accounts.user("a", 2, barred=True),
    ],
)
def test_a_live_token_never_brings_back_a_deleted_or_barred_user(
    process: Process, said: Observation, known: bool
) -> None:
    """Known before, or unknown until this message."""
    if known:
        process.observe(accounts.user("a", 1))
        assert process.check(token()).reason is Reason.ALLOWED_BY_RULE
    process.observe(said)
    before = process.people(), process.revision()
    for acting in (True, False):
        assert process.check(token(acting=acting)).reason is Reason.ACTOR_DISABLED
    assert (process.people(), process.revision()) == before


def test_a_token_of_before_the_deletion_does_not_undo_it_where_the_replica_is_behind(
    process: Process,
) -> None:
    """The database has the last word, not what this process saw when it was asked."""
    assert run(process.replica.view("user_a", "org_a", [])).user is None
    elsewhere = Directory(process.store, lambda _: None)
    elsewhere.observe([accounts.end_of(ClerkKind.USER, "user_a", 2)])
    assert process.check_at_once(token()).reason is Reason.ACTOR_DISABLED
    assert process.people()[0] is None


def test_a_removed_member_is_not_admitted_again_and_causes_no_write_with_every_request(
    process: Process,
) -> None:
    process.observe(accounts.user("a", 1), accounts.membership("a", 1, born=1))
    assert process.check(token()).reason is Reason.ALLOWED_BY_RULE
    process.observe(accounts.end_of_membership("a", 2, born=1))
    with counted_writes(process) as writes:
        for _ in range(20):
            assert process.check(token()).reason is Reason.MEMBERSHIP_UNKNOWN
    assert len(writes) == 1
    assert process.people()[2] is None
    # A new life of the membership is Clerk's to begin.
    process.observe(accounts.membership("a", 3, born=3, life="2"))
    assert process.check(token()).reason is Reason.ALLOWED_BY_RULE


def test_nobody_joins_an_organization_that_clerk_deleted(process: Process) -> None:
    process.observe(accounts.end_of(ClerkKind.ORGANIZATION, "org_a", 2))
    assert process.check(token()).reason is Reason.MEMBERSHIP_UNKNOWN
    assert process.people() == (User("user_a"), None, None, [])


def test_a_user_disabled_by_the_administrator_stays_disabled(process: Process) -> None:
    process.administrator.create(User("user_a", status=UserStatus.DISABLED))
    before = process.revision()
    assert process.check(token()).reason is Reason.ACTOR_DISABLED
    assert process.revision() == before


def test_a_user_deleted_by_the_administrator_stays_deleted(start: Start) -> None:
    process = start()
    assert process.check(token()).reason is Reason.ALLOWED_BY_RULE
    process.administrator.delete(User, ("user_a",))
    before = process.revision()
    for serving in (process, start()):
        assert serving.check(token()).reason is Reason.ACTOR_UNKNOWN
    assert process.revision() == before


@pytest.mark.parametrize("known", [True, False])
def test_a_revoked_session_proves_no_membership(process: Process, known: bool) -> None:
    process.administrator.revoke_session("sess_1", "user_a")
    if known:
        assert process.check(token(acting=False)).reason is Reason.SESSION_REVOKED
    assert process.check(token()).reason is Reason.SESSION_REVOKED
    assert process.people() == (User("user_a"), None, None, [])
    # Another session of the same user may, and at once.
    assert process.check(token(session_id="sess_2")).reason is Reason.ALLOWED_BY_RULE


def test_nobody_joins_an_organization_that_the_administrator_deleted(start: Start) -> None:
    process = start()
    assert process.check(token()).reason is Reason.ALLOWED_BY_RULE
    process.administrator.delete(Organization, ("org_a",))
    for serving in (process, start()):
        assert serving.check(token()).reason is Reason.MEMBERSHIP_UNKNOWN
    assert process.people() == (User("user_a"), None, None, [])


# --- what it never does ---------------------------------------------------------------------------


@on_sqlite
def test_a_token_that_is_refused_creates_nothing(process: Process) -> None:
    now = time.time()
    refused = {
        Reason.TOKEN_SIGNATURE_INVALID: token(key=signing_key("other")),
        Reason.TOKEN_EXPIRED: token(claims={"exp": now - 60, "iat": now - 120, "nbf": now - 120}),
        Reason.TOKEN_NOT_YET_VALID: token(claims={"nbf": now + 60}),
        Reason.TOKEN_ISSUER_MISMATCH: token(issuer="https://evil.example.test"),
        Reason.TOKEN_NOT_A_SESSION: token(header={"cat": "cl_B7d4PD222AAA"}),
        Reason.SESSION_PENDING: token(claims={"sts": "pending"}),
        Reason.TOKEN_ALGORITHM_NOT_ALLOWED: token(header={"alg": "none"}),
    }
    with counted_writes(process) as writes:
        for reason, refused_token in refused.items():
            assert process.check(refused_token).reason is reason
    assert writes == []
    assert process.people() == (None, None, None, [])


def test_where_the_database_is_away_there_is_no_answer_and_afterwards_there_is(
    postgresql_url: str, tmp_path: Path
) -> None:
    """An error is neither an allow nor a denial, and it is not remembered."""
    with running(postgresql_url, tmp_path, "pdp", None) as process:
        assert run(process.replica.view("user_a", "org_a", [])).user is None
        outage = Outage(postgresql_url)
        outage.begin()
        try:
            with pytest.raises(DatabaseUnavailable):
                process.check_at_once(token())
        finally:
            outage.end()
        assert process.check_at_once(token()).reason is Reason.ALLOWED_BY_RULE


def of(user_id: str, **claimed: Any) -> VerifiedToken:
    actor = Actor(user_id, "sess_1", "org_1")
    return VerifiedToken(actor, "https://issuer", "key", 60.0, {"iat": 12.5}, **claimed)


def test_one_writes_at_a_time_and_the_others_wait_only_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, gate = threading.Event(), threading.Event()

    def admit(_arrival: object, _noticed_at: int) -> int:
        begun.set()
        gate.wait(10)
        return 7

    here, done_within = threading.get_ident(), provisioning.done_within

    def done_within_a_moment(future: Any, seconds: float) -> Any:
        return done_within(future, 0.05 if threading.get_ident() == here else seconds)

    monkeypatch.setattr(provisioning, "done_within", done_within_a_moment)
    provision = Provisioner(admit)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(run, provision(of("user_1")))
        assert begun.wait(10)
        for user_id in ("user_1", "user_2"):
            with pytest.raises(DatabaseUnavailable):
                run(provision(of(user_id)))
        gate.set()
        assert first.result() == 7


def test_nobody_is_created_from_a_token_of_another_instance() -> None:
    asked: list[object] = []

    def admit(arrival: object, _noticed_at: int) -> int:
        asked.append(arrival)
        return 7

    provision = Provisioner(admit, instance_id="ins_ours")
    ours, theirs = (replace(of("user_1"), key_id=kid) for kid in ("ins_ours", "ins_theirs"))
    assert [run(provision(verified)) for verified in (theirs, ours)] == [0, 7]
    assert asked == [token_identity_of(ours)]


def test_what_was_settled_is_asked_again_after_a_while_or_when_the_token_says_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[object, int]] = []

    def admit(arrival: object, noticed_at: int) -> int:
        asked.append((arrival, noticed_at))
        return len(asked)

    provision = Provisioner(admit)
    plain, member = of("user_1"), of("user_1", claimed_organization_role="org:member")
    assert [run(provision(verified)) for verified in (plain, plain, member, member)] == [1, 1, 2, 2]
    monkeypatch.setattr(provisioning, "SETTLED_SECONDS", 0)
    other = of("user_2")
    assert [run(provision(verified)) for verified in (other, other)] == [3, 4]
    # Noticed when the token was issued, in milliseconds.
    assert asked[0] == (token_identity_of(plain), 12_500)
