"""Checks the settings against the real systems: database, issuers, Clerk, a token.

In: valid settings, and at most one token. Out: findings; a check comes after those it depends on.
Nothing is written, and no finding contains a secret.
"""

import email.utils
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from pdp.clerk.api import ANSWER_BYTES_MAX, REQUEST_SECONDS_MAX, ClerkApi
from pdp.clock import Clock
from pdp.database.engine import database_name, open_engine
from pdp.database.migrations import schema_problem
from pdp.decision import CONSOLE, Policy, may_reach_console
from pdp.doctor.findings import Finding, failed, fine, warning
from pdp.doctor.token import examine_token
from pdp.errors import ClerkError, ClerkRefused, DatabaseUnavailable, PdpError
from pdp.facts import Store
from pdp.facts.store.loader import read_policy
from pdp.facts.store.references import find_referrers
from pdp.identity import KeysReport, examine_keys
from pdp.model import Effect, Grant, Role
from pdp.outgoing import open_client
from pdp.settings import (
    ClerkSettings,
    Settings,
    development_beside_production,
    is_development,
    is_loopback,
)

CLOCK_WARNING_SECONDS = 2.0
SECRET_KEYS = ("sk_live_", "sk_test_")
DEVELOPMENT_KEY = "sk_test_"
GRANTS_MAX = 1_000
"""Grants of a role that are read."""
GRANTS_SHOWN = 5

VerifyRls = Callable[[Store], Iterable[tuple[str, str, str]]]
"""Finds what is wrong: subject, message, advice."""
Reports = Mapping[str, KeysReport]
"""By issuer."""


def examine(
    settings: Settings, token: str | None, clock: Clock, rls: VerifyRls | None = None
) -> Iterator[Finding]:
    """Runs all checks in order. A check is skipped if another one that it needs has failed.

    `rls`: verifies row-level security, if there is any.
    """
    store, finding = _open_database(settings)
    yield finding
    reports: dict[str, KeysReport] = {}
    deviations: list[float] = []
    for issuer in settings.issuers:
        asked_at = clock()
        report = reports[issuer.issuer] = examine_keys(issuer)
        deviations += _deviations(report.headers, asked_at, clock())
        yield from _keys(issuer.issuer, report)
        if not issuer.authorized_parties:
            yield warning(
                f"issuer {issuer.issuer}",
                "authorized_parties is empty: a token made for any front end is accepted",
                "set authorized_parties to the origins of your front ends",
            )
    both = development_beside_production(settings.issuers)
    if both is not None:
        yield warning(
            "issuers",
            f"{both[0]} is a development instance beside {both[1]}",
            "take one of them away: each issuer speaks for every user id",
        )
    yield from _instance_id(settings.clerk, reports)
    yield from _secret_key(settings)
    if not deviations and settings.clerk.secret_key is not None:
        deviations = _deviations_of_api(settings.clerk.api_url, clock)
    yield _clock(deviations, settings.clock_skew_seconds)
    yield _webhooks(settings.clerk)
    yield from _user_sources(settings.clerk)
    if store is not None:
        yield from _default_role(settings.clerk, store)
    if store is not None and settings.console.listen is not None:
        yield from _console(store)
    if store is not None and rls is not None:
        yield from _row_level_security(store, rls)
    if token is not None:
        yield from examine_token(token, settings, reports, store, clock)


# --- database -------------------------------------------------------------------------------------


def _open_database(settings: Settings) -> tuple[Store | None, Finding]:
    try:
        engine = open_engine(settings.database_url.get_secret_value())
        problem = schema_problem(engine)
        if problem is not None:
            advice = "run `pdp migrate`; SQLite is also migrated by `pdp serve`"
            return None, failed("database", problem, advice)
        store = Store(engine)
        with store.read() as reader:
            name = database_name(settings.database_url.get_secret_value())
            return store, fine(
                "database", f"{name} answers, migrated, at revision {reader.revision}"
            )
    except ValueError as error:
        return None, failed("database", str(error), "correct database_url")
    except DatabaseUnavailable as error:
        return None, failed("database", error.message, "check database_url and the server")


def _default_role(clerk: ClerkSettings, store: Store) -> Iterator[Finding]:
    if clerk.default_role is None:
        return
    subject = "clerk.default_role"
    try:
        with store.read() as reader:
            known = reader.get(Role, (clerk.default_role,)) is not None
    except DatabaseUnavailable as error:
        yield failed(subject, error.message, "check the database")
        return
    if known:
        yield fine(subject, f"there is a role {clerk.default_role}")
    else:
        yield failed(
            subject,
            f"there is no role {clerk.default_role}: new users are created without it",
            "add the role to the policy, or correct the setting",
        )


def _console(store: Store) -> Iterator[Finding]:
    subject = "console"
    reaching, without = 0, []
    try:
        with store.read() as reader:
            for role, patterns in _console_rules(read_policy(reader)).items():
                for grant in find_referrers(reader, Grant, limit=GRANTS_MAX, role=role):
                    if any(may_reach_console(grant, pattern) for pattern in patterns):
                        reaching += 1
                    else:
                        without.append(grant.id)
    except DatabaseUnavailable as error:
        yield failed(subject, error.message, "check the database")
        return
    if without:
        more = f" and {len(without) - GRANTS_SHOWN} more" if len(without) > GRANTS_SHOWN else ""
        yield warning(
            subject,
            f"grants without effect: {', '.join(sorted(without)[:GRANTS_SHOWN])}{more}",
            "give them to a user, everywhere; console:view also in one organization",
        )
    if not reaching:
        yield warning(
            subject,
            "no grant reaches it: nobody can sign in",
            "allow console:view in a role (`*` does not include it), and grant it to named users",
        )
    elif not without:
        yield fine(subject, f"grants that reach it: {reaching}")


def _console_rules(policy: Policy) -> dict[str, set[str]]:
    """By role: what its rules allow of the console, also inherited ones. Without other roles."""
    own: defaultdict[str, set[str]] = defaultdict(set)
    for rule in policy.rules.values():
        if rule.effect is Effect.ALLOW and rule.permission.startswith(CONSOLE):
            own[rule.role].add(rule.permission)
    by_role = {
        name: set[str]().union(*(own[each] for each in policy.closure(name) if each in own))
        for name in policy.roles
    }
    return {name: patterns for name, patterns in by_role.items() if patterns}


def _row_level_security(store: Store, verify: VerifyRls) -> Iterator[Finding]:
    subject = "row-level security"
    try:
        found = list(verify(store))
    except (PdpError, ValueError) as error:  # a rule or a table that it does not support
        yield failed(subject, str(error), "correct the policy or the configuration")
        return
    for about, message, advice in found:
        yield failed(f"{subject}: {about}", message, advice)
    if not found:
        yield fine(subject, "the database enforces the policy as it is now")


# --- issuers --------------------------------------------------------------------------------------


def _keys(issuer: str, report: KeysReport) -> Iterator[Finding]:
    subject = f"issuer {issuer}"
    if report.problem:
        advice = "correct public_key or public_key_file"
        if report.source != "PEM":
            advice = "check the issuer (Clerk's Frontend API URL), jwks_url, and the network"
        yield failed(subject, f"{report.source}: {report.problem}", advice)
    elif report.source == "PEM":
        yield fine(subject, "the PEM key parses")
    else:
        count = "1 usable key" if len(report.kids) == 1 else f"{len(report.kids)} usable keys"
        yield fine(subject, f"{report.source} answers with {count}: {', '.join(report.kids)}")
    for name, why in report.ignored:
        advice = "nothing, if its tokens are not meant for the PDP"
        yield warning(subject, f"the key {name} is ignored: {why}", advice)


def _instance_id(clerk: ClerkSettings, reports: Reports) -> Iterator[Finding]:
    """Clerk publishes an instance's key under the instance's own id."""
    subject = "clerk.instance_id"
    kids = sorted({kid for report in reports.values() for kid in report.kids})
    of_clerk = [kid for kid in kids if kid.startswith("ins_")]
    if clerk.instance_id is None:
        found = f" to {of_clerk[0]}, the kid of its key" if len(of_clerk) == 1 else ""
        yield warning(
            subject, "is not set: webhooks and sync cannot know their instance", f"set it{found}"
        )
    elif clerk.instance_id in kids:
        yield fine(subject, f"{clerk.instance_id} is the kid of an issuer's key")
    elif kids:
        yield failed(
            subject,
            f"is {clerk.instance_id}, but the issuers' keys belong to {', '.join(kids)}",
            "let instance_id and issuers name the same Clerk instance",
        )


# --- Backend API ----------------------------------------------------------------------------------


def _secret_key(settings: Settings) -> Iterator[Finding]:
    clerk, subject = settings.clerk, "clerk.secret_key"
    if clerk.secret_key is None:
        yield warning(
            subject,
            "is not set: no sync, no reconciliation, no push-claims",
            "set it to the instance's secret key",
        )
        return
    key = clerk.secret_key.get_secret_value()
    if not key.startswith(SECRET_KEYS):
        what = "is a publishable key" if key.startswith("pk_") else "is not of the form of one"
        yield failed(subject, what, "copy the secret key: sk_live_... or sk_test_...")
        return
    yield from _environment(settings, development=key.startswith(DEVELOPMENT_KEY))
    yield _instance_of_key(clerk, key)


def _environment(settings: Settings, *, development: bool) -> Iterator[Finding]:
    for issuer in settings.issuers:
        host = urlsplit(issuer.issuer).hostname or ""
        if is_loopback(host) or is_development(issuer.issuer) == development:
            continue
        key, other = ("development", "production") if development else ("production", "development")
        yield warning(
            "clerk.secret_key",
            f"is a {key} key, and {issuer.issuer} looks like a {other} instance",
            "take the key and the issuer from the same instance",
        )


def _instance_of_key(clerk: ClerkSettings, key: str) -> Finding:
    subject = "clerk.secret_key"
    api = ClerkApi(key, clerk.api_url, patience_seconds=0)
    try:
        found = api.instance_id()
    except ClerkRefused as error:
        return failed(subject, error.message, "copy the secret key again; is it of this instance?")
    except ClerkError as error:
        return failed(
            subject, error.message, f"check the connection to {clerk.api_url}, or try again"
        )
    finally:
        api.close()
    if clerk.instance_id not in (None, found):
        return failed(
            subject,
            f"belongs to {found}, and clerk.instance_id is {clerk.instance_id}",
            "take both from the same instance",
        )
    return fine(subject, f"works, and belongs to {found}")


# --- clock ----------------------------------------------------------------------------------------


def _deviations(headers: Mapping[str, str], asked_at: float, answered_at: float) -> list[float]:
    """Seconds by which our clock is provably ahead of (negative: behind) the server's, which sends
    whole seconds. Empty if the response has no time, or comes from a cache."""
    if headers.get("age", "0") != "0":
        return []
    try:
        date = email.utils.parsedate_to_datetime(headers.get("date", "")).timestamp()
    except ValueError:
        return []
    return [max(0.0, asked_at - (date + 1)) + min(0.0, answered_at - date)]


def _deviations_of_api(url: str, clock: Clock) -> list[float]:
    asked_at = clock()
    try:
        with open_client(seconds_max=REQUEST_SECONDS_MAX, bytes_max=ANSWER_BYTES_MAX) as client:
            headers = client.get(url).headers
    except httpx.HTTPError:
        return []
    return _deviations(headers, asked_at, clock())


def _clock(deviations: list[float], skew_seconds: float) -> Finding:
    """One server that agrees is enough: others may be wrong themselves."""
    if not deviations:
        return warning(
            "clock",
            "no server sent its time",
            "make sure that this machine's clock is kept by NTP",
        )
    deviation = min(deviations, key=abs)
    message = (
        f"{abs(deviation):.1f} s {'ahead of' if deviation > 0 else 'behind'} the servers asked"
    )
    advice = "let NTP keep this machine's clock"
    if abs(deviation) > skew_seconds:
        tolerated = f"more than clock_skew_seconds ({skew_seconds:g})"
        return failed("clock", f"{message}, {tolerated}: good tokens are refused", advice)
    if abs(deviation) > CLOCK_WARNING_SECONDS:
        return warning("clock", message, advice)
    return fine("clock", "agrees with the servers asked")


# --- how users become known -----------------------------------------------------------------------


def _webhooks(clerk: ClerkSettings) -> Finding:
    """Checks the number of secrets; the settings check their form, and that instance_id is set."""
    subject, secrets = "clerk.webhook_secrets", [_plain(secret) for secret in clerk.webhook_secrets]
    if not secrets:
        return warning(
            subject,
            "is empty: webhooks are not answered",
            "add the endpoint <PDP>/webhooks/clerk in Clerk's dashboard; set its secret here",
        )
    if len(set(secrets)) < len(secrets):
        return warning(
            subject, "holds the same secret twice", "leave one out; two are for rotation"
        )
    if len(secrets) > 1:
        return fine(
            subject,
            f"{len(secrets)} well-formed secrets: a rotation; remove the old one when it is over",
        )
    return fine(subject, "1 well-formed secret")


def _user_sources(clerk: ClerkSettings) -> Iterator[Finding]:
    """Checks how users become known, and whether a lost change is found later."""
    if not (clerk.webhook_secrets or clerk.reconcile_seconds):
        message = "users become known only through the administration service and policy documents"
        if clerk.provisioning:
            message = "users become known at their first request; later changes are not reported"
        yield warning("clerk", message, "set webhook_secrets or reconcile_seconds")
    elif not clerk.reconcile_seconds:
        yield warning(
            "clerk.reconcile_seconds",
            "is 0: the change of a lost webhook stays unknown",
            "set it, e.g. to 900, or run `pdp clerk sync` regularly",
        )
    else:
        yield fine("clerk.reconcile_seconds", f"every {clerk.reconcile_seconds:g} s")
    if clerk.push_claims and not (clerk.webhook_secrets or clerk.reconcile_seconds):
        yield warning(
            "clerk.push_claims",
            "pushed claims are never reported back, so each full push writes them again",
            "set webhook_secrets or reconcile_seconds",
        )


def _plain(secret: SecretStr) -> str:
    return secret.get_secret_value().removeprefix("whsec_")
