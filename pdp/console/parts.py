"""What the console shows and how: the rooms that answer, and a page."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from pdp.access_queries import AccessQueries
from pdp.administrator import Administrator
from pdp.audit import DecisionLog, Statistics
from pdp.authorizer import Authorizer
from pdp.clock import Clock
from pdp.concurrency.waiting import in_pool
from pdp.explainer import Explainer
from pdp.facts import Replica
from pdp.facts.store.console_secrets import ConsoleSecrets
from pdp.gauges import Gauges
from pdp.model import VerifiedToken

T = TypeVar("T")

CALLER = "pdp:console"
"""The caller of its decisions and queries in the audit log. No name of a backend has a colon."""
VIEW = "console:view"
"""The permission to sign in, and to see the pages that ask for no other."""


@dataclass(frozen=True, slots=True)
class ConsoleParts:
    """The rooms that answer, and the settings of the console."""

    authorizer: Authorizer
    explainer: Explainer
    queries: AccessQueries
    administrator: Administrator
    replica: Replica
    decision_log: DecisionLog
    statistics: Statistics
    secrets: ConsoleSecrets
    pool: ThreadPoolExecutor
    clock: Clock
    gauges: Gauges
    """Of this process: freshness, key sets, the decision log."""
    obstacles: Callable[[], Sequence[str]]
    """Why the process is not ready."""
    origin: str
    session_cookie: str
    sign_in_url: str | None
    records_allows: bool

    async def blocking(self, work: Callable[[], T]) -> T:
        """Runs `work` in a thread of the pool."""
        return await in_pool(self.pool, work)


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of somebody who may see the page."""

    token: VerifiedToken
    query: Mapping[str, str]
    """The parameters of the address; of equal names the last."""
    form: Mapping[str, str] = field(default_factory=dict)
    """The fields of a POST, without the one that proves its origin."""

    def get(self, name: str) -> str:
        """A parameter of the address without spaces around it; empty: there is none."""
        return self.query.get(name, "").strip()


class Shown(NamedTuple):
    """A page to render."""

    template: str
    values: Mapping[str, Any]
    refresh_seconds: int | None = None
    """After which the browser loads the page again; None: never."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the console."""

    path: str
    name: str
    """The id of the resource `console:<name>` in the audit log."""
    title: str
    show: Callable[[ConsoleParts, Visit], Awaitable[Shown]]
    in_menu: bool = False
    permission: str = VIEW
    takes_form: bool = False
    """Whether it answers POST as well."""
