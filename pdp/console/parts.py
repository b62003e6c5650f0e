"""What the console shows and how: the rooms that answer, and a page."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.responses import Response

from pdp.access_queries import AccessQueries
from pdp.administrator import Administrator
from pdp.audit import AdministrationLog, DecisionLog, Findings, Statistics
from pdp.authorizer import Authorizer
from pdp.clock import Clock
from pdp.concurrency.waiting import in_pool
from pdp.decision import CONSOLE_VIEW, TENANT_CONSOLE
from pdp.explainer import Explainer
from pdp.facts import Replica, Store
from pdp.facts.store.console_secrets import ConsoleSecrets
from pdp.gauges import Gauges
from pdp.model import Question, Resource, VerifiedToken
from pdp.reviews import Campaigns, GrantReviews, UserAccessQueries

T = TypeVar("T")

CALLER = "pdp:console"
"""The caller of its decisions and queries in the audit log. No name of a backend has a colon."""
VIEW = CONSOLE_VIEW
"""The permission to sign in, and to see the pages that ask for no other."""
REVIEW = "console:review"
"""The permission to open campaigns, to decide about their grants, and to sign their reports."""


@dataclass(frozen=True, slots=True)
class ConsoleParts:
    """The rooms that answer, and the settings of the console."""

    authorizer: Authorizer
    explainer: Explainer
    queries: AccessQueries
    administrator: Administrator
    store: Store
    """For earlier policies."""
    replica: Replica
    decision_log: DecisionLog
    administration_log: AdministrationLog
    statistics: Statistics
    grant_reviews: GrantReviews
    findings: Findings
    user_access: UserAccessQueries
    campaigns: Campaigns
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
    report_key: Ed25519PrivateKey | None
    """Signs the reports of campaigns."""
    trees: Path | None
    """The directory of this machine's logs; None: they have no trees."""

    async def blocking(self, work: Callable[[], T]) -> T:
        """Runs `work` in a thread of the pool."""
        return await in_pool(self.pool, work)


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of somebody who may see the page."""

    token: VerifiedToken
    organization: str | None
    """The organization that all that is shown must belong to; None: all of them may be shown."""
    query: Mapping[str, str]
    """The parameters of the address; of equal names the last."""
    form: Mapping[str, str] = field(default_factory=dict)
    """The fields of a POST, without the one that proves its origin."""

    def get(self, name: str) -> str:
        """A parameter of the address without spaces around it; empty: there is none."""
        return self.query.get(name, "").strip()

    def with_query(self, **parameters: str) -> "Visit":
        """The same request with other parameters in its address."""
        return replace(self, query={**self.query, **parameters})


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
    show: Callable[[ConsoleParts, Visit], Awaitable[Shown | Response]]
    """A response is a file, or leads to another page."""
    in_menu: bool = False
    permission: str = VIEW
    methods: tuple[str, ...] = ("GET",)
    within: str = ""
    """The path of the page in the menu that it belongs to."""
    of_organization: bool = False
    """Whether it obeys `Visit.organization`. The others need the permission everywhere."""


def question_of(permission: str, page: str, organization: str | None) -> Question:
    """The question that decides about a page, or about its view of one organization."""
    if organization is None:
        return Question(permission, Resource("console", page))
    return Question(permission, Resource(TENANT_CONSOLE, organization, organization))
