"""A database whose role names are pushed to Clerk, and a Clerk that records what it received."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import SecretStr
from sqlalchemy import Engine

from pdp.administrator import Administrator
from pdp.clerk.api import open_api
from pdp.clerk.directory import Directory
from pdp.clerk.role_claims import Outcome, push_users, read_claim
from pdp.clerk.role_claims_push import Pusher
from pdp.facts import Store
from pdp.model import (
    EVERYWHERE,
    Grant,
    Role,
    Scope,
    ToUser,
    User,
)
from pdp.settings import ClerkSettings
from tests.kit.clerk import events
from tests.kit.clerk.api_server import SECRET_KEY, Answer, ClerkApiServer, Object
from tests.kit.clerk.events import INSTANCE_ID, event, user

NOW = 1_800_000_000.0
ROLES = ("A", "B", "C")


class Clerk(ClerkApiServer):
    """Remembers what is written, and sends webhooks about it."""

    def reset(self) -> None:
        super().reset()
        self.written: list[tuple[str, Any]] = []
        """(user id, pdp_roles) of each PATCH."""
        self.endpoint: int | None = None
        """Receives `user.updated` before the PATCH is answered."""
        self.held: list[bytes] | None = None
        """Keeps the messages instead."""

    def of(self, user_id: str) -> list[Any]:
        return [roles for pushed_id, roles in list(self.written) if pushed_id == user_id]

    def tell(self, body: bytes) -> None:
        assert self.endpoint is not None
        assert events.deliver(self.endpoint, body)[0] == 200

    def _patch(self, parts: list[str], body: bytes) -> Answer | None:
        answer = super()._patch(parts, body)
        if answer is not None:
            changed: Object = self.objects[parts[1]]
            self.written.append((parts[1], changed["public_metadata"].get("pdp_roles")))
            message = event("user.updated", changed, at=changed["updated_at"])
            if self.held is not None:
                self.held.append(message)
            elif self.endpoint is not None:
                self.tell(message)
        return answer


class World:
    """A database with some roles, and who writes it."""

    def __init__(self, engine: Engine, clerk: Clerk) -> None:
        self.store = Store(engine)
        self.clerk = clerk
        self.now = NOW
        self.written: list[int] = []
        self.administrator = Administrator(self.store, on_write=self.written.append)
        self.directory = Directory(self.store, on_write=self.written.append)
        self.settings = ClerkSettings(
            instance_id=INSTANCE_ID, secret_key=SecretStr(SECRET_KEY), api_url=clerk.url
        )
        for name in ROLES:
            self.administrator.create(Role(name))

    def clock(self) -> float:
        return self.now

    def add(self, *ids: str, roles: Sequence[str] = (), said: Any = None) -> None:
        """Users here and at Clerk, who say what they have."""
        metadata = {"theme": "dark"} | ({} if said is None else {"pdp_roles": said})
        for id_ in ids:
            self.clerk.add(user(id_, public_metadata=metadata))
            self.administrator.create(User(id_, attributes=metadata))
            for role in roles:
                self.grant(id_, role)

    def grant(self, user_id: str, role: str, scope: Scope = EVERYWHERE, **window: float) -> str:
        grant = Grant("", role, ToUser(user_id), scope, **window)
        return self.administrator.create(grant)[0].id

    def wanted(self, user_id: str) -> Sequence[str]:
        claim = read_claim(self.store, user_id, self.clock)
        assert claim is not None
        return claim.wanted

    def push(self, *ids: str) -> list[tuple[str, Outcome]]:
        with open_api(self.settings, time.sleep) as api:
            return list(push_users(api, self.store, ids, self.clock))

    @contextlib.contextmanager
    def pushing(self) -> Iterator[Pusher]:
        """A pusher that is notified of later writes."""
        pusher = Pusher(self.settings, self.store, clock=self.clock)
        self.administrator = Administrator(self.store, on_write=pusher.notify)
        self.directory = Directory(self.store, on_write=pusher.notify)
        pusher.start()
        try:
            yield pusher
        finally:
            pusher.stop()
