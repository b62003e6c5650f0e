"""A page of 50 rows out of a million on PostgreSQL, through filters and row-level security: each
beside the query that somebody would write by hand. And what making a plan takes."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import quantiles

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
from pdp.decision import Policy, Standing, prepare
from pdp.decision.partial import plan_for
from pdp.facts import Store
from pdp.facts.store.loader import read_policy
from pdp.model import Actor as ActorOfToken
from pdp.model import (
    Effect,
    Entity,
    Grant,
    Membership,
    OnResource,
    Organization,
    OrganizationFacts,
    Permission,
    ResourceRef,
    Role,
    Rule,
    ToOrganizationRole,
    ToUser,
    User,
    UserFacts,
    VerifiedToken,
)
from pdp.rls.config import parse_config
from pdp.rls.deployment import generate

_PAGE = 50
_ORGANIZATIONS = 200
_GRANTS = 100
"""Of the user, each on one course of their organization."""
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
    *(
        Grant(
            f"g{number}",
            plan.ROLE,
            ToUser(plan.USER),
            OnResource(ResourceRef(plan.KIND, f"course_{number * _ORGANIZATIONS:09}")),
        )
        for number in range(_GRANTS)
    ),
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
            with engine.connect() as connection:
                policy = _prepare(connection, Store(engine), rows)
                run.say(f"  {rows:,} rows are there")
                figures = _pages(connection, policy, calls)
        finally:
            engine.dispose()
    making = _asked(lambda: _plan(policy), calls)
    figures["plan"] = asdict(making)
    ratio = figures["row_level_security"]["p50_ms"] / figures["by_hand"]["p50_ms"]
    run.say(f"  row-level security takes {ratio:.2f} times the query by hand")
    return {"rows": rows, **figures}


def _prepare(connection: sa.Connection, store: Store, rows: int) -> Policy:
    raw = connection.connection.driver_connection
    assert raw is not None
    raw.autocommit = True
    raw.execute("SET statement_timeout = 0")
    raw.execute(_TABLES.replace(":rows", str(rows)))
    raw.execute(generate(store, parse_config(_CONFIG)).text)
    raw.execute("VACUUM ANALYZE")
    raw.autocommit = False
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

    def asked(query: sa.Select[tuple[str, str | None]], *, as_app: bool) -> list[str]:
        if as_app:
            connection.execute(bind, {"setting": SETTING, "actor": setting})
        found = [row.id for row in connection.execute(query)]
        connection.rollback()
        return found

    expected = asked(by_hand, as_app=False)
    pdp.expect(len(expected) == _PAGE, "the page must be full")
    found = {"by_hand": _asked(lambda: asked(by_hand, as_app=False), calls)}
    pdp.expect(asked(filtered, as_app=False) == expected, "a filter must take the same rows")
    found["filter"] = _asked(lambda: asked(filtered, as_app=False), calls)
    connection.exec_driver_sql("SET ROLE app")
    connection.commit()
    for name, query in {"row_level_security": of_organization, "forgotten": page}.items():
        pdp.expect(asked(query, as_app=True) == expected, "the policy must take the same rows")
        found[name] = _asked(lambda query=query: asked(query, as_app=True), calls)
    return {name: asdict(latency) for name, latency in found.items()}


def _plan(policy: Policy) -> DecisionPlan:
    return plan_for(_standing(policy), _VIEW, plan.KIND, {})


def _standing(policy: Policy) -> Standing:
    token = VerifiedToken(
        ActorOfToken(plan.USER, "sess_1", plan.ORGANIZATION),
        issuer="https://bench.example",
        key_id="key",
        expires_at=time.time() + 60,
        claims={},
    )
    grants = tuple(
        one for one in _ENTITIES if isinstance(one, Grant) and isinstance(one.subject, ToUser)
    )
    user = UserFacts(User(plan.USER), {plan.ORGANIZATION: "org:member"}, grants, frozenset())
    facts = OrganizationFacts(plan.ORGANIZATION, ())
    return prepare(policy, token, user, facts, time.time())


def _asked(ask: Callable[[], object], calls: int) -> Latency:
    took = []
    for _ in range(calls):
        began = time.perf_counter()
        ask()
        took.append((time.perf_counter() - began) * 1_000)
    cuts = quantiles(took, n=100)
    return Latency(cuts[49], cuts[98])
