"""Messages about an account in a thousand orders end in the same state as in the right order.

Clerk delivers at least once and in any order. Messages are duplicated, held back and overtaken;
transactions are cut off half way and their messages delivered again, and so are messages whose
answer was lost.
"""

import contextlib
import random
from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import Engine

from pdp.administrator import Administrator
from pdp.clerk.directory import Directory
from pdp.clerk.observations import Message
from pdp.clerk.webhooks.events import observation_of, parse_event
from pdp.database.engine import open_engine
from pdp.facts import Store
from pdp.model import Role
from tests.kit import soak
from tests.kit.clerk import events as clerk
from tests.kit.clerk.accounts import state_of

Life = Callable[[str], list[bytes]]
T = clerk.T0
SECOND = 1_000


class Crash(BaseException):
    """The process died here."""


class Account:
    """A directory whose process dies within a transaction when the test says so."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._dies_at = 0
        self._read = 0
        self.administrator = Administrator(store, lambda _: None)
        self.directory = Directory(store, lambda _: None, clock=self._clock, default_role="READER")

    def deliver(self, *delivered: tuple[str, bytes], dies_at: int = 0) -> None:
        """Messages that stood in the line together."""
        self._dies_at, self._read = dies_at, 0
        seen = [(id_, observation_of(parse_event(body))) for id_, body in delivered]
        messages = [
            Message(id_, observation) for id_, observation in seen if observation is not None
        ]
        self.directory.observe_messages(messages)

    def _clock(self) -> float:
        # The first reading dates the rows of the messages: the second finds them written.
        self._read += 1
        if self._read == self._dies_at:
            raise Crash
        return 1_800_000_000.0


def beginning(name: str) -> list[bytes]:
    """Signs up, joins, is promoted, signs out, is banned for a while, leaves, comes back."""
    user_id, organization_id = f"user_{name}", f"org_{name}"

    def user(at: int, **said: object) -> bytes:
        kind = "user.created" if at == 0 else "user.updated"
        when = T + at * SECOND
        return clerk.event(kind, clerk.user(user_id, updated_at=when, **said), at=when)  # type: ignore[arg-type]

    def organization(at: int, title: str) -> bytes:
        kind = "organization.created" if at == 1 else "organization.updated"
        when = T + at * SECOND
        said = clerk.organization(organization_id, updated_at=when, name=title, slug="school")
        return clerk.event(kind, said, at=when)

    def membership(kind: str, at: int, role: str, born: int, updated: int) -> bytes:
        said = clerk.membership(
            f"orgmem_{name}{born}",
            organization_id=organization_id,
            user_id=user_id,
            role=role,
            created_at=T + born * SECOND,
            updated_at=T + updated * SECOND,
        )
        return clerk.event(f"organizationMembership.{kind}", said, at=T + at * SECOND)

    def session(kind: str, at: int, status: str) -> bytes:
        said = clerk.session(f"sess_{name}", user_id=user_id, status=status)
        return clerk.event(f"session.{kind}", said, at=T + at * SECOND)

    return [
        user(0, email="first@example.test"),
        organization(1, "School"),
        membership("created", 2, "org:member", born=2, updated=2),
        user(3, email="second@example.test", public_metadata={"plan": "pro"}),
        membership("updated", 4, "org:admin", born=2, updated=4),
        session("created", 4, "active"),
        session("ended", 5, "ended"),
        user(6, email="second@example.test", banned=True),
        user(7, email="third@example.test", first_name="Ann"),
        # `updated_at` is that of before: a deletion does not raise it.
        membership("deleted", 8, "org:admin", born=2, updated=4),
        membership("created", 9, "org:member", born=9, updated=9),
        organization(10, "High School"),
    ]


def stays(name: str) -> list[bytes]:
    return beginning(name)


def leaves(name: str) -> list[bytes]:
    said = clerk.membership(
        f"orgmem_{name}9",
        organization_id=f"org_{name}",
        user_id=f"user_{name}",
        created_at=T + 9 * SECOND,
        updated_at=T + 9 * SECOND,
    )
    end = clerk.event("organizationMembership.deleted", said, at=T + 20 * SECOND)
    return [*beginning(name), end]


def is_deleted(name: str) -> list[bytes]:
    said = clerk.deleted("user", f"user_{name}")
    return [*beginning(name), clerk.event("user.deleted", said, at=T + 20 * SECOND)]


def loses_the_organization(name: str) -> list[bytes]:
    said = clerk.deleted("organization", f"org_{name}")
    return [*beginning(name), clerk.event("organization.deleted", said, at=T + 20 * SECOND)]


def is_banned(name: str) -> list[bytes]:
    # In seconds, as Clerk's own examples have it.
    when = T // SECOND + 20
    said = clerk.user(f"user_{name}", updated_at=when * SECOND, banned=True)
    return [*beginning(name), clerk.event("user.updated", said, at=when)]


LIVES: Sequence[Life] = (stays, leaves, is_deleted, loses_the_organization, is_banned)


def deliver_in_order(account: Account, life: Life, name: str) -> Sequence[object]:
    for number, body in enumerate(life(name)):
        account.deliver((f"msg_{name}x{number}", body))
    return state(account, name)


def deliver_in_disorder(
    account: Account, life: Life, name: str, chance: random.Random
) -> Sequence[object]:
    """Every message arrives at least once, whatever happens between."""
    waiting = [(f"msg_{name}x{number}", body) for number, body in enumerate(life(name))]
    waiting += chance.choices(waiting, k=4)  # delivered twice, or more often
    # An operator's replay: the same event under another id.
    waiting += [(f"msg_{name}r{n}", body) for n, (_, body) in enumerate(chance.sample(waiting, 2))]
    chance.shuffle(waiting)
    while waiting:
        together = [waiting.pop() for _ in range(min(len(waiting), chance.choice((1, 1, 1, 2, 5))))]
        if chance.random() < 0.15:  # the process dies, before or after it has committed
            with contextlib.suppress(Crash):
                account.deliver(*together, dies_at=chance.choice((0, 1, 2)))
            for message in together:
                waiting.insert(chance.randint(0, len(waiting)), message)
        else:
            account.deliver(*together)
    return state(account, name)


def state(account: Account, name: str) -> Sequence[object]:
    with account.store.read() as reader:
        query = f"SELECT count(*) FROM revoked_sessions WHERE user_id = 'user_{name}'"
        revoked = reader.connection.exec_driver_sql(query).scalar_one()
        return (*state_of(reader, name), revoked)


def account_on(engine: Engine) -> Account:
    account = Account(Store(engine))
    account.administrator.create(Role("READER"))
    return account


@pytest.mark.soak
def test_disorders_of_an_accounts_life_end_as_it_ends_in_order(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url)
    account = account_on(engine)
    expected = {life: deliver_in_order(account, life, life.__name__) for life in LIVES}
    assert len({repr(end) for end in expected.values()}) == len(LIVES)
    for number in range(soak.count(1_000, sample=10)):
        life = LIVES[number % len(LIVES)]
        found = deliver_in_disorder(account, life, f"n{number}", random.Random(number))
        assert found == expected[life], f"{life.__name__}, seed {number}"
    engine.dispose()


@pytest.mark.soak
@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.__name__)
def test_disorders_end_as_in_order_on_both_engines(engine: Engine, life: Life) -> None:
    account = account_on(engine)
    expected = deliver_in_order(account, life, "inorder")
    for number in range(soak.count(60, sample=2)):
        found = deliver_in_disorder(account, life, f"n{number}", random.Random(number))
        assert found == expected, f"seed {number}"


def test_the_ends_are_what_a_reader_expects(sqlite_url: str) -> None:
    """In order, so that the property above is not one of a program that stores nothing."""
    account = account_on(open_engine(sqlite_url))
    ends = {life.__name__: deliver_in_order(account, life, life.__name__) for life in LIVES}
    for name, (user, status, organization, role, grants, revoked) in ends.items():  # type: ignore[misc]
        assert revoked == 1, name
        assert (user is None) == (name == "is_deleted"), name
        assert (organization is None) == (name == "loses_the_organization"), name
        assert role == ("org:member" if name in ("stays", "is_banned") else None), name
        assert grants == ([] if name == "is_deleted" else ["READER"]), name
        assert status.value == {"is_deleted": "deleted", "is_banned": "barred"}.get(
            name, "active"
        ), name
    assert ends["stays"][0] == ("third@example.test", "Ann", ends["stays"][0][2], {})  # type: ignore[index]
