"""A page of 50 rows out of a million on PostgreSQL, through filters and row-level security: each
beside the query that somebody would write by hand. And what making a plan takes."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import quantiles

import psycopg
import sqlalchemy as sa
from pdp_client.plans import Plan
from pdp_client.rls import SETTING, Actor
from pdp_client.sqlalchemy import register, where
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from bench import pdp, plan
from bench.part import Figures, Run
from bench.postgresql import postgresql
from pdp.database.engine import open_engine
from pdp.decision import Plan as DecisionPlan
from pdp.decision import Policy, Principal, resolve_principal
from pdp.decision.partial import plan_for
from pdp.facts import Store
from pdp.facts.store.loader import read_policy
from pdp.model import Actor as ActorOfToken
from pdp.model import (
    Effect,
    Entity,
    Grant,
    Membership,
    Organization,
    OrganizationFacts,
    Permission,
    Role,
    Rule,
    ToOrganizationRole,
    User,
    UserFacts,
    VerifiedToken,
)
from pdp.rls.config import parse_config
from pdp.rls.deployment import generate

_PAGE = 50
_ORGANIZATIONS = 200
_VIEW = f"{plan.KIND}:view"
_EDIT = f"{plan.KIND}:edit"
_CONFIG = f"""
roles: [app]
tables:
  public.courses:
    type: {plan.KIND}
    id: id
    organization: organization_id
    permissions: {{read: "{_VIEW}", update: "{_EDIT}"}}
    attributes: {{owner: owner_id, archived: archived}}
"""
_ENTITIES: list[Entity] = [
    *(Permission(name) for name in (_VIEW, _EDIT)),
    Role(plan.ROLE),
    Rule("view", plan.ROLE, Effect.ALLOW, _VIEW),
    Rule("edit", plan.ROLE, Effect.ALLOW, _EDIT, "resource.attributes.owner == actor.id"),
    Rule(
        "archived",
        plan.ROLE,
        Effect.DENY,
        "*",
        "has(resource.attributes.archived) && resource.attributes.archived == true",
    ),
    Organization(plan.ORGANIZATION),
    User(plan.USER),
    Membership(plan.ORGANIZATION, plan.USER, "org:member"),
    Grant("members", plan.ROLE, ToOrganizationRole("org:member")),
]
_TABLES = f"""
CREATE ROLE app LOGIN;
CREATE TABLE courses (
    id text PRIMARY KEY, organization_id text, owner_id text, title text, archived boolean
);
INSERT INTO courses
SELECT 'course_' || lpad(n::text, 9, '0'),
    CASE WHEN n % {_ORGANIZATIONS} = 0 THEN '{plan.ORGANIZATION}'
        ELSE 'org_' || n % {_ORGANIZATIONS} END,
    CASE WHEN n % 3 = 0 THEN '{plan.USER}' ELSE '{plan.STRANGER}' END,
    'A course with a title of its own ' || md5(n::text), n / {_ORGANIZATIONS} % 10 = 9
FROM generate_series(0, :rows - 1) n;
CREATE INDEX ON courses (organization_id, title);
CREATE INDEX ON courses (title);
GRANT SELECT ON courses TO app;
"""


class _Base(DeclarativeBase):
    pass


class Course(_Base):
    """A row of the application."""

    __tablename__ = "courses"
    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str | None]
    owner_id: Mapped[str | None]
    title: Mapped[str | None]
    archived: Mapped[bool | None]


register(
    Course,
    plan.KIND,
    id=Course.id,
    organization=Course.organization_id,
    attributes={"owner": Course.owner_id, "archived": Course.archived},
)


@dataclass(frozen=True, slots=True)
class Latency:
    """Of one thing, done again and again. Milliseconds."""

    p50_ms: float
    p99_ms: float


def measure(run: Run) -> Figures:
    """Loads and asks. Takes a minute or two."""
    rows, calls = run.chosen.resources, run.chosen.query_calls
    with postgresql() as url:
        pdp.fill(url, iter(_ENTITIES))
        engine = open_engine(url)
        try:
            policy = _prepare(url, Store(engine), rows)
            run.say(f"  {rows:,} rows are there")
            with engine.connect() as connection:
                figures = _pages(connection, policy, calls)
        finally:
            engine.dispose()
    figures["plan"] = asdict(_asked({"plan": lambda: _plan(policy)}, calls)["plan"])
    ratio = figures["row_level_security"]["p50_ms"] / figures["by_hand"]["p50_ms"]
    run.say(f"  row-level security takes {ratio:.2f} times the query by hand")
    return {"rows": rows, **figures}


def _prepare(url: str, store: Store, rows: int) -> Policy:
    """Makes and fills the table. Not through the store's engine, which waits for seconds only."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_TABLES.replace(":rows", str(rows)).encode())
        connection.execute(generate(store, parse_config(_CONFIG)).text.encode())
        connection.execute("VACUUM ANALYZE courses")
    with store.read() as reader:
        return read_policy(reader)


def _pages(connection: sa.Connection, policy: Policy, calls: int) -> dict[str, dict[str, float]]:
    """Each in a transaction of its own, as a request has one."""
    columns = (Course.id, Course.title)
    page = sa.select(*columns).order_by(Course.title).limit(_PAGE)
    of_organization = page.where(Course.organization_id == plan.ORGANIZATION)
    by_hand = of_organization.where(Course.archived.is_not(sa.true()))
    planned = _plan(policy)
    client = Plan(_VIEW, plan.KIND, planned.filter, False, ())
    filtered = page.where(where(client, Course))
    setting = Actor(plan.USER, "sess_1", plan.ORGANIZATION).setting()
    bind = sa.text("SELECT set_config(:setting, :actor, true)")

    def asked(connection: sa.Connection, query: sa.Select[str, str | None]) -> list[str]:
        if connection is app:
            connection.execute(bind, {"setting": SETTING, "actor": setting})
        found = [row.id for row in connection.execute(query)]
        connection.rollback()
        return found

    with connection.engine.connect() as app:
        app.exec_driver_sql("SET ROLE app")
        app.commit()
        asks: dict[str, Callable[[], list[str]]] = {
            "by_hand": lambda: asked(connection, by_hand),
            "filter": lambda: asked(connection, filtered),
            "row_level_security": lambda: asked(app, of_organization),
            "forgotten": lambda: asked(app, page),
        }
        expected = asks["by_hand"]()
        pdp.expect(len(expected) == _PAGE, "the page must be full")
        for name, ask in asks.items():
            pdp.expect(ask() == expected, f"{name} must take the same rows")
        return {name: asdict(latency) for name, latency in _asked(asks, calls).items()}


def _plan(policy: Policy) -> DecisionPlan:
    return plan_for(_standing(policy), _VIEW, plan.KIND, {})


def _standing(policy: Policy) -> Principal:
    token = VerifiedToken(
        ActorOfToken(plan.USER, "sess_1", plan.ORGANIZATION),
        issuer="https://bench.example",
        key_id="key",
        expires_at=time.time() + 60,
        claims={},
    )
    user = UserFacts(User(plan.USER), {plan.ORGANIZATION: "org:member"}, (), frozenset())
    facts = OrganizationFacts(plan.ORGANIZATION, ())
    return resolve_principal(policy, token, user, facts, time.time())


def _asked(asks: Mapping[str, Callable[[], object]], calls: int) -> dict[str, Latency]:
    """In turn, so that what else the machine does is the same for all."""
    took: dict[str, list[float]] = {name: [] for name in asks}
    for _ in range(calls):
        for name, ask in asks.items():
            began = time.perf_counter()
            ask()
            took[name].append((time.perf_counter() - began) * 1_000)
    cuts = {name: quantiles(values, n=100) for name, values in took.items()}
    return {name: Latency(found[49], found[98]) for name, found in cuts.items()}
