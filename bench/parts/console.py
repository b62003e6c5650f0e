"""The pages of the console over the log of a large company, one request at a time, on PostgreSQL
and on SQLite. Each request is about something else, so that no cache of the database answers it."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from random import Random
from statistics import quantiles
from typing import Any, Final
from urllib.parse import urlencode

import httpx
from sqlalchemy import select

from bench import pdp
from bench.part import Figures, Run
from bench.postgresql import postgresql
from bench.processes import free_port
from bench.signer import ISSUER, KEY_ID
from examples.company import ANALYST, Company, large_company
from examples.company_log import load_company, load_history
from pdp.audit.tables import audit_records
from pdp.console.sessions import begin_session
from pdp.database.engine import begin_read, open_engine
from pdp.facts import migrate
from pdp.facts.store.console_secrets import ConsoleSecrets
from pdp.model import Actor, VerifiedToken

DAYS: Final = 100
DAY: Final = 86_400
IDS: Final = 1_000
"""Decisions that pages about one decision choose from."""
Path = Callable[[Random], str]


def measure(run: Run) -> Figures:
    """Loads, serves, asks. Takes minutes."""
    made = large_company()
    with postgresql() as url:
        found = [_measured(run, "PostgreSQL", url, made)]
    url = f"sqlite:///{run.directory / 'console.db'}"
    run.directory.mkdir(parents=True, exist_ok=True)
    found.append(_measured(run, "SQLite", url, made))
    return {"records": run.chosen.console_records, "databases": found}


def _measured(run: Run, name: str, url: str, made: Company) -> dict[str, Any]:
    engine = open_engine(url)
    migrate(engine)
    started, end = time.monotonic(), time.time()
    load_company(engine, made)
    load_history(engine, made, end=end, days=DAYS, decisions=run.chosen.console_records)
    seconds = time.monotonic() - started
    run.say(f"  {name}: {run.chosen.console_records:,} records loaded in {seconds:.0f} s")
    with begin_read(engine) as connection:
        ids = connection.execute(select(audit_records.c.decision_id).limit(IDS)).scalars().all()
    secrets = ConsoleSecrets(engine, clock=time.time)
    listen = f"127.0.0.1:{free_port()}"
    settings = {"PDP_CONSOLE__LISTEN": listen, "PDP_AUDIT_ALLOWS": "true"}
    directory = run.directory / name.lower()
    rows = []
    with pdp.serving(directory, run.signer, url, settings=settings):
        for page, path in _pages(made, ids, end).items():
            actor = Actor(ANALYST, "sess_bench")
            token = VerifiedToken(actor, ISSUER, KEY_ID, end, claims={})
            cookies = {"pdp-console": begin_session(secrets, token, None, time.time())}
            with httpx.Client(
                base_url=f"http://{listen}", cookies=cookies, trust_env=False, timeout=60
            ) as client:
                took = _asked(client, path, run.chosen.console_calls)
            cuts = quantiles(took, n=100)
            rows.append({"page": page, "p50_ms": cuts[49], "p99_ms": cuts[98]})
            run.say(f"    {page}: p50 {cuts[49]:.0f} ms, p99 {cuts[98]:.0f} ms")
    engine.dispose()
    return {"database": name, "load_seconds": seconds, "pages": rows}


def _asked(client: httpx.Client, path: Path, calls: int) -> list[float]:
    random = Random(1)
    client.get(path(random))
    took = []
    for _ in range(calls):
        target = path(random)
        began = time.perf_counter()
        answer = client.get(target)
        took.append((time.perf_counter() - began) * 1_000)
        pdp.expect(answer.status_code == 200, f"{target}: {answer.status_code}")
    return took


def _pages(made: Company, ids: Sequence[str], end: float) -> Mapping[str, Path]:
    organizations = list(made.members)

    def user(random: Random) -> str:
        return random.choice(made.members[random.choice(organizations)])

    def invoice(random: Random) -> str:
        return random.choice(made.invoices[random.choice(organizations)])

    def time_in(random: Random, days: float, **more: str) -> dict[str, str]:
        since = end - random.uniform(days, DAYS) * DAY
        return {"from": _iso(since), "to": _iso(since + days * DAY), **more}

    def search(fields: Callable[[Random], dict[str, str]]) -> Path:
        return lambda random: f"/decisions?{urlencode(fields(random))}"

    def about_a_user(random: Random) -> str:
        organization = random.choice(organizations)
        query = {
            "id": random.choice(made.members[organization]),
            "organization": organization,
            "type": "invoice",
            "resource": random.choice(made.invoices[organization]),
        }
        return f"/user?{urlencode(query)}"

    def who_can(random: Random) -> str:
        query = {"type": "invoice", "id": invoice(random), "permission": "invoice:edit"}
        return f"/resource?{urlencode(query)}"

    return {
        "Now, 24 hours": lambda _: "/?span=24h",
        "Now, 7 days": lambda _: "/?span=7d",
        "Decisions, the newest": lambda _: "/decisions",
        "Decisions of a user": search(lambda random: {"user": user(random)}),
        "Decisions on a resource": search(
            lambda random: {"type": "invoice", "id": invoice(random)}
        ),
        "Decisions in an old minute": search(lambda random: time_in(random, 1 / 1440)),
        "Decisions in an old week": search(lambda random: time_in(random, 7)),
        "Denials in an old hour": search(lambda random: time_in(random, 1 / 24, decision="deny")),
        "Denials of a user on an old day": search(
            lambda random: time_in(random, 1, decision="deny", user=user(random))
        ),
        "Denials of a permission in an organization": search(
            lambda random: {
                "decision": "deny",
                "permission": "invoice:view",
                "organization": random.choice(organizations),
            }
        ),
        "A search without a match": search(
            lambda random: {
                "reason": "ALLOWED_BY_RULE",
                "decision": "deny",
                "caller": random.choice(("billing-api", "backoffice")),
            }
        ),
        "One decision": lambda random: f"/decision?id={random.choice(ids)}",
        "People": lambda random: f"/people?{urlencode({'after': user(random)})}",
        "A user, and what they may do": about_a_user,
        "A role": lambda _: "/role?name=APPROVER",
        "A resource, and who may use it": who_can,
        "Policy": lambda _: "/policy",
        "Try it": lambda _: "/try",
    }


def _iso(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
