"""Explains why a token is accepted or refused, and what is stored about its user.

The verifier of the service checks the token. The claims of a refused token are read only to show
the found and the expected value. A finding never contains the token or its signature, and only
those claims that explain a refusal.
"""

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pdp.clock import Clock
from pdp.doctor.findings import Finding, failed, fine, warning
from pdp.errors import DatabaseUnavailable, KeysUnavailable
from pdp.facts import Store
from pdp.facts.store.clerk_objects import ClerkKind, ClerkStatus, read_objects
from pdp.facts.store.loader import FactKeys, load_facts
from pdp.identity import KeysReport, Verifier, read_unverified
from pdp.limits import TOKEN_BYTES_MAX
from pdp.model import Actor, Reason, RefusedToken, User, UserFacts, UserStatus, VerifiedToken
from pdp.settings import Settings

KEYS_SECONDS_MAX = 3.0
SHOWN_CHARACTERS_MAX = 200
ERRORS_PAGE = "see docs/errors.md"
WITHOUT_PARTY = (
    "Clerk leaves azp out where the request for the token has no Origin header (native apps, "
    "scripts) and where its Backend API makes the token: get the token in the browser, or, if such "
    "clients are yours, leave authorized_parties of this issuer empty."
)
JUDGED_CLAIMS = ("sub", "sid", "iat", "nbf", "exp", "v", "o", "org_id", "act")

Claims = Mapping[str, Any]


def examine_token(
    token: str,
    settings: Settings,
    reports: Mapping[str, KeysReport],
    store: Store | None,
    clock: Clock,
) -> Iterator[Finding]:
    """Checks a token, and then what is stored about its user.

    Args:
        token: The text of the token.
        settings: The settings of the service.
        reports: The keys of each issuer.
        store: The database; None: only the token is checked.
        clock: The wall clock.
    """
    try:
        reachable = any(not report.problem for report in reports.values())
        patience = KEYS_SECONDS_MAX if reachable else 0
        verdict = verify_token(token, settings, clock, patience)
    except KeysUnavailable as error:
        yield failed("token", f"cannot be verified: {error.message}", "see its issuer above")
        return
    except (ValueError, OSError):
        yield failed("token", "cannot be verified: a PEM key is unusable", "see the issuer above")
        return
    if isinstance(verdict, RefusedToken):
        reason = verdict.reason
        message = refusal_text(reason, token, settings, reports, clock())
        yield failed("token", message, ERRORS_PAGE)
    else:
        yield fine("token", _accepted(verdict, clock()))
        yield from _kid(verdict, settings)
    if verdict.actor is not None and store is not None:
        yield from _known(verdict.actor, settings, store)


def verify_token(
    token: str, settings: Settings, clock: Clock, patience_seconds: float = KEYS_SECONDS_MAX
) -> VerifiedToken | RefusedToken:
    """Verifies a token as the service does, and waits so long for the keys of its issuer.

    Raises:
        KeysUnavailable: The keys of the issuer cannot be read.
        ValueError: A configured PEM key is unusable.
        OSError: The file of a PEM key cannot be read.
    """
    verifier = Verifier(
        settings.issuers,
        clock=clock,
        clock_skew_seconds=settings.clock_skew_seconds,
        token_lifetime_seconds_max=settings.token_lifetime_seconds_max,
        jwks_refresh_seconds=settings.jwks_refresh_seconds,
        jwks_cooldown_seconds=settings.jwks_cooldown_seconds,
    )
    verifier.start()
    try:
        # The verifier limits each wait for a key set, so the wait is repeated until the deadline.
        deadline = time.monotonic() + patience_seconds
        pause = threading.Event()
        while True:
            try:
                return asyncio.run(verifier.verify(token))
            except KeysUnavailable:
                if time.monotonic() >= deadline:
                    raise
                pause.wait(0.1)
    finally:
        verifier.stop()


def _accepted(token: VerifiedToken, now: float) -> str:
    actor = token.actor
    parts = [f"verifies: {actor.user_id}", f"session {actor.session_id}"]
    if actor.organization_id is not None:
        parts.append(f"active organization {actor.organization_id}")
    if actor.impersonator_id is not None:
        parts.append(f"impersonated by {actor.impersonator_id}")
    left = token.expires_at - now
    parts.append(f"expires in {left:.0f} s" if left > 0 else f"expired {-left:.0f} s ago (skew)")
    return ", ".join(parts)


def _kid(token: VerifiedToken, settings: Settings) -> Iterator[Finding]:
    instance_id = settings.clerk.instance_id
    if instance_id is not None and token.key_id.startswith("ins_") and token.key_id != instance_id:
        yield warning(
            "token",
            f"is of {token.key_id}, and clerk.instance_id is {instance_id}",
            "webhooks and sync follow another instance than this user's: is that meant?",
        )


# --- why a token is refused -----------------------------------------------------------------------


def refusal_text(
    reason: Reason,
    token: str,
    settings: Settings,
    reports: Mapping[str, KeysReport],
    now: float,
) -> str:
    """Why a token is refused, with the found and the expected value. Does not contain the token."""
    detail = _detail(reason, token, settings, reports, now)
    return f"{reason.name}: {reason.value}{f' {detail}' if detail else ''}"


def _detail(
    reason: Reason,
    token: str,
    settings: Settings,
    reports: Mapping[str, KeysReport],
    now: float,
) -> str:
    stated = read_unverified(token)
    if stated is None:
        return _shape(token)
    header, claims = stated
    issuer = next(
        (configured for configured in settings.issuers if configured.issuer == claims.get("iss")),
        None,
    )
    detail = ""
    match reason:
        case Reason.TOKEN_ALGORITHM_NOT_ALLOWED:
            detail = f"alg: {_shown(header.get('alg'))}; parameters: {_shown(sorted(header))}."
        case Reason.TOKEN_NOT_A_SESSION:
            detail = f"{_pairs(header, ('typ', 'cat'))}; {_pairs(claims, ('sub', 'sid'))}."
        case Reason.TOKEN_ISSUER_MISMATCH:
            names = [configured.issuer for configured in settings.issuers]
            detail = _found_and_configured("iss", claims, "issuers", names)
        case Reason.TOKEN_KEY_UNKNOWN:
            report = reports.get(issuer.issuer) if issuer is not None else None
            known = list(report.kids) if report is not None else []
            detail = f"kid found: {_shown(header.get('kid'))}; kids known: {_shown(known)}."
        case Reason.TOKEN_PARTY_NOT_AUTHORIZED if issuer is not None:
            parties = issuer.authorized_parties
            detail = _found_and_configured("azp", claims, "authorized_parties", parties)
        case Reason.TOKEN_PARTY_MISSING if issuer is not None:
            parties = issuer.authorized_parties
            found = _found_and_configured("azp", claims, "authorized_parties", parties)
            detail = f"{found} {WITHOUT_PARTY}"
        case Reason.TOKEN_AUDIENCE_MISMATCH if issuer is not None:
            detail = _found_and_configured("aud", claims, "audience", issuer.audience)
        case Reason.SESSION_PENDING:
            detail = f"sts: {_shown(claims.get('sts'))}."
        case Reason.TOKEN_CLAIM_INVALID:
            detail = f"{_pairs(claims, JUDGED_CLAIMS)}."
        case Reason.TOKEN_EXPIRED | Reason.TOKEN_NOT_YET_VALID | Reason.TOKEN_LIFETIME_TOO_LONG:
            detail = _times(reason, claims, settings, now)
    return detail


def _shape(token: str) -> str:
    """Explains why a text does not have the form of a token."""
    if not token:
        return "It is empty."
    if token[:7].lower() == "bearer ":
        return "It begins with `Bearer`: give the text after it."
    if len(token) > TOKEN_BYTES_MAX:
        return f"It is longer than {TOKEN_BYTES_MAX} bytes."
    return f"Parts between dots: {token.count('.') + 1}; a session token has 3, of base64url JSON."


def _times(reason: Reason, claims: Claims, settings: Settings, now: float) -> str:
    expires, issued = float(claims["exp"]), float(claims["iat"])
    if reason is Reason.TOKEN_EXPIRED:
        return f"It expired {now - expires:.0f} s ago."
    if reason is Reason.TOKEN_NOT_YET_VALID:
        begins = max(issued, float(claims.get("nbf", issued)))
        return f"It begins to be valid in {begins - now:.0f} s by this machine's clock."
    bound = settings.token_lifetime_seconds_max
    return f"It lives for {expires - issued:.0f} s; token_lifetime_seconds_max is {bound:g}."


def _found_and_configured(name: str, claims: Claims, setting: str, configured: object) -> str:
    return f"{name} found: {_shown(claims.get(name))}; {setting}: {_shown(configured)}."


def _pairs(values: Claims, names: Sequence[str]) -> str:
    return ", ".join(
        f"{name}: {_shown(values[name]) if name in values else 'none'}" for name in names
    )


def _shown(value: object) -> str:
    """Untrusted text, limited in length. The CLI escapes its control characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARACTERS_MAX else f"{text[:SHOWN_CHARACTERS_MAX]}..."


# --- the user of the token ------------------------------------------------------------------------


def _known(actor: Actor, settings: Settings, store: Store) -> Iterator[Finding]:
    try:
        with store.read() as reader:
            user = reader.get(User, (actor.user_id,))
            found = read_objects(reader, ClerkKind.USER, [actor.user_id]).get(actor.user_id)
            status = found.status if found is not None else ClerkStatus.ACTIVE
            facts = load_facts(reader, FactKeys({actor.user_id})).users[actor.user_id]
    except DatabaseUnavailable as error:
        yield failed("user", error.message, "check the database")
        return
    yield _user(actor, user, status, settings)
    if user is not None and facts is not None:
        yield from _session_and_membership(actor, facts)


def _user(actor: Actor, user: User | None, status: ClerkStatus, settings: Settings) -> Finding:
    subject = f"user {actor.user_id}"
    if status is ClerkStatus.DELETED:
        return failed(subject, "was deleted at Clerk: ACTOR_DISABLED", "nothing: that is permanent")
    if status is ClerkStatus.BARRED:
        advice = "unban or unlock the user in Clerk's dashboard, if they may come back"
        return failed(
            subject, "is banned, locked or deprovisioned at Clerk: ACTOR_DISABLED", advice
        )
    if user is None and settings.clerk.provisioning:
        return fine(subject, "is not known yet: the first request creates them")
    if user is None:
        advice = "run `pdp clerk sync`, or create the user; clerk.provisioning does it by itself"
        return failed(subject, "is not known here: ACTOR_UNKNOWN", advice)
    if user.status is UserStatus.DISABLED:
        advice = "enable the user with `pdp user enable`, if they may come back"
        return failed(subject, "is disabled here: ACTOR_DISABLED", advice)
    return fine(subject, "is known and not disabled")


def _session_and_membership(actor: Actor, facts: UserFacts) -> Iterator[Finding]:
    if actor.session_id in facts.revoked_sessions:
        yield failed("session", "was revoked or has ended: SESSION_REVOKED", "sign in again")
    organization_id = actor.organization_id
    if organization_id is None:
        return
    subject = f"organization {organization_id}"
    if organization_id in facts.memberships:
        yield fine(subject, f"the user is a member, as {facts.memberships[organization_id]}")
    else:
        advice = "run `pdp clerk sync`, or create the membership"
        yield failed(subject, "the user is not known as a member: MEMBERSHIP_UNKNOWN", advice)
