"""A Clerk account, a database, and syncs between them."""

import random
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import SecretStr
from sqlalchemy import Engine

from pdp.administrator import Administrator
from pdp.clerk.directory import Directory
from pdp.clerk.objects import deletion_seen, membership_seen, organization_seen, user_seen
from pdp.clerk.observations import Difference, Observation
from pdp.clerk.sync.sync import Progress, Summary, Sync
from pdp.facts import Store
from pdp.facts.store.clerk_objects import ClerkKind, ClerkStatus, read_objects
from pdp.model import Membership, Organization, User
from pdp.settings import ClerkSettings
from tests.kit.clerk.api_server import SECRET_KEY, ClerkApiServer
from tests.kit.clerk.events import (
    INSTANCE_ID,
    T0,
    membership,
    organization,
    permission,
    role,
    user,
)

NOW = T0 / 1000 + 1_000_000
"""Unix seconds: later than all that the objects say of themselves."""
PAGE_ITEMS = 12
"""As many as a page has here."""
Object = dict[str, Any]


class World:
    """The account may be changed through `clerk`, the clock through `now`."""

    def __init__(self, engine: Engine, clerk: ClerkApiServer) -> None:
        self.engine = engine
        self.clerk = clerk
        self.store = Store(engine)
        self.administrator = Administrator(self.store, lambda _: None)
        self.directory = Directory(self.store, lambda _: None)
        self.now = NOW
        self.pause: Callable[[float], object] = lambda _: None
        self.found: list[Difference] = []
        """By the last sync."""
        self.progress: list[Progress] = []

    def sync(self, *, interval: float = 0, **options: Any) -> Summary:
        self.found, self.progress = [], []
        settings = ClerkSettings(
            instance_id=INSTANCE_ID,
            secret_key=SecretStr(SECRET_KEY),
            api_url=self.clerk.url,
            reconcile_seconds=interval,
        )
        return Sync(
            settings,
            self.store,
            self.directory,
            clock=lambda: self.now,
            pause=self.pause,
            on_progress=self.progress.append,
            on_difference=self.found.append,
        ).run(**options)

    def facts(self) -> dict[str, Any]:
        """The facts about users that decisions read."""
        with self.store.read() as reader:
            users = {
                user.id: (user.email, user.name, user.attributes) for user in reader.list(User)
            }
            organizations = {
                organization.id: (organization.slug, organization.name)
                for organization in reader.list(Organization)
            }
            memberships = {(m.organization_id, m.user_id): m.role for m in reader.list(Membership)}
            said = read_objects(reader, ClerkKind.USER, users)
            catalogue = {
                **read_objects(reader, ClerkKind.PERMISSION, CATALOGUE),
                **read_objects(reader, ClerkKind.ROLE, CATALOGUE),
            }
        return {
            "users": users,
            "barred": {i for i, user in said.items() if user.status is ClerkStatus.BARRED},
            "organizations": organizations,
            "memberships": memberships,
            "catalogue": {
                id_: object_.content
                for id_, object_ in catalogue.items()
                if object_.status is not ClerkStatus.DELETED
            },
        }

    def account(self) -> dict[str, Any]:
        """The same, as Clerk has it."""
        kinds: dict[str, list[Object]] = {}
        for object_ in self.clerk.objects.values():
            kinds.setdefault(object_["object"], []).append(object_)
        users, permissions = kinds.get("user", []), kinds.get("permission", [])
        return {
            "users": {user["id"]: _person(user) for user in users},
            "barred": {user["id"] for user in users if user["banned"] or user["locked"]},
            "organizations": {
                organization["id"]: (organization["slug"], organization["name"])
                for organization in kinds.get("organization", [])
            },
            "memberships": {
                (
                    membership["organization"]["id"],
                    membership["public_user_data"]["user_id"],
                ): membership["role"]
                for membership in kinds.get("organization_membership", [])
            },
            "catalogue": {
                permission["id"]: {"key": permission["key"]} for permission in permissions
            }
            | {role["id"]: _role(role) for role in kinds.get("role", [])},
        }

    def revision(self) -> int:
        with self.store.read() as reader:
            return reader.revision


CATALOGUE = ("perm_1", "perm_2", "role_1", "role_2")
"""Ids that roles and permissions have here."""


def add_school(clerk: ClerkApiServer, members: int = 3) -> None:
    """An organization `org_1` with members `user_00000` and on, each with an address."""
    edit = permission("perm_1")
    clerk.add(edit, role("role_1", permissions=[edit]), organization("org_1"))
    for n in range(members):
        clerk.add(
            user(f"user_{n:05d}", email=f"u{n}@example.test", created_at=T0 + n),
            membership(f"orgmem_{n:05d}", user_id=f"user_{n:05d}", created_at=T0 + n),
        )


def live(clerk: ClerkApiServer, chance: random.Random, events: int) -> Iterator[Observation]:
    """An account's life: changes it, and yields what a webhook would tell of each change."""
    for at in range(T0, T0 + events):
        kinds: dict[str, list[Object]] = {}
        for object_ in clerk.objects.values():
            kinds.setdefault(object_["object"], []).append(object_)
        what = chance.choice(("user", "user", "organization", "organization_membership"))
        known = kinds.get(what, [])
        if known and chance.random() < 0.25:
            gone = chance.choice(known)
            clerk.remove(gone["id"])
            yield deletion_seen(DELETABLE[what], gone, at)
            continue
        before = chance.choice(known) if known and chance.random() < 0.5 else {}
        times = {"created_at": before.get("created_at", at), "updated_at": at}
        match what:
            case "user":
                said = {"email": f"{at}@example.test", "banned": chance.random() < 0.2}
                data = user(before.get("id", f"user_{at}"), **said, **times)
                seen: Observation = user_seen(data, at)
            case "organization":
                data = organization(before.get("id", f"org_{at}"), name=f"since {at}", **times)
                seen = organization_seen(data, at)
            case _ if before or (kinds.get("user") and kinds.get("organization")):
                owners = {
                    "organization_id": before["organization"]["id"]
                    if before
                    else chance.choice(kinds["organization"])["id"],
                    "user_id": before["public_user_data"]["user_id"]
                    if before
                    else chance.choice(kinds["user"])["id"],
                }
                data = membership(
                    before.get("id", f"orgmem_{at}"),
                    role=chance.choice(("org:admin", "org:member")),
                    **owners,
                    **times,
                )
                seen = membership_seen(data, at)
            case _:
                continue
        clerk.add(data)
        yield seen


DELETABLE = {
    "user": ClerkKind.USER,
    "organization": ClerkKind.ORGANIZATION,
    "organization_membership": ClerkKind.MEMBERSHIP,
}


def _person(user: Object) -> tuple[str, str, Any]:
    primary = [a for a in user["email_addresses"] if a["id"] == user["primary_email_address_id"]]
    address = primary[0]["email_address"] if primary else ""
    return address, user["first_name"] or "", user["public_metadata"]


def _role(role: Object) -> Object:
    return {"key": role["key"], "permissions": [[p["id"], p["key"]] for p in role["permissions"]]}
