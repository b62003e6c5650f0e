"""`pdp token`: development tokens, and what a session token says."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pdp.cli.ask import token_text
from pdp.cli.options import Config, utc_text
from pdp.cli.output import HELP_STYLE, emit, note, say, say_marked, waiting, warn

if TYPE_CHECKING:
    from pdp.model import VerifiedToken

DEVELOPMENT_ISSUER = "http://localhost/pdp-development"

app = typer.Typer(rich_markup_mode=HELP_STYLE, help="Development tokens, and what a token says.")

_User = Annotated[str, typer.Option(help="Clerk user id, e.g. user_ada.")]
_Organization = Annotated[str | None, typer.Option(help="Active organization, e.g. org_school.")]
_OrganizationRole = Annotated[
    str | None, typer.Option(help="Claimed organization role (the database decides).")
]
_Session = Annotated[str, typer.Option(help="Clerk session id.")]
_Key = Annotated[
    Path, typer.Option(help="Private key (PEM); made where there is none, beside KEY.pub.")
]
_Issuer = Annotated[str, typer.Option(help="Issuer claim.")]
_Seconds = Annotated[int, typer.Option(min=-3600, max=3600, help="Lifetime.")]
_SESSION, _KEY, _SECONDS = "sess_development", Path("development.pem"), 60
_SHOWN_CHARACTERS_MAX: Final = 200
_EXPLAINED = frozenset(
    ("sub", "sid", "iss", "azp", "aud", "iat", "nbf", "exp", "fva", "act", "jti")
)
"""Claims that have a line of their own."""


@app.callback(invoke_without_command=True)
def bare(
    ctx: typer.Context,
    user: Annotated[str, typer.Option(hidden=True)] = "",
    organization: Annotated[str | None, typer.Option(hidden=True)] = None,
    organization_role: Annotated[str | None, typer.Option(hidden=True)] = None,
    session: Annotated[str, typer.Option(hidden=True)] = _SESSION,
    key: Annotated[Path, typer.Option(hidden=True)] = _KEY,
    issuer: Annotated[str, typer.Option(hidden=True)] = DEVELOPMENT_ISSUER,
    seconds: Annotated[int, typer.Option(min=-3600, max=3600, hidden=True)] = _SECONDS,
) -> None:
    """Mints or inspects session tokens. Without a subcommand: mints, which is deprecated."""
    if ctx.invoked_subcommand is not None:
        if user:
            raise typer.BadParameter("options go after `mint` or `inspect`")
        return
    if not user:
        emit(ctx.get_help() + "\n")
        raise typer.Exit(2)
    warn("`pdp token` is deprecated, the next release does not have it: use `pdp token mint`")
    mint(user, organization, organization_role, session, key, issuer, seconds)


@app.command("mint")
def mint(
    user: _User,
    organization: _Organization = None,
    organization_role: _OrganizationRole = None,
    session: _Session = _SESSION,
    key: _Key = _KEY,
    issuer: _Issuer = DEVELOPMENT_ISSUER,
    seconds: _Seconds = _SECONDS,
) -> None:
    """Mints a DEVELOPMENT token from a local key. No Clerk instance accepts or issues it."""
    from pdp.clock import wall_clock
    from pdp.identity import mint_development_token

    note("development token: for a server that trusts this local key only")
    minted = mint_development_token(
        _private_key(key),
        user_id=user,
        session_id=session,
        issuer=issuer,
        organization_id=organization,
        organization_role=organization_role,
        now=wall_clock(),
        lifetime_seconds=seconds,
    )
    emit(f"{minted}\n")


@app.command("inspect")
def inspect(
    token: Annotated[
        str, typer.Option(envvar="PDP_TOKEN", help="Session token; - reads standard input.")
    ] = "-",
    config: Config = None,
) -> None:
    """Verifies a session token with the settings of this machine, and explains it.

    Nothing is logged, and the token itself is not printed. What is stored about its user is not
    read: `pdp clerk doctor` does that. Exit status: 0 accepted, 1 refused, 2 it cannot be verified.
    """
    from pdp.clock import wall_clock
    from pdp.doctor.token import refusal_text, verify_token
    from pdp.identity import examine_keys, read_unverified
    from pdp.model import RefusedToken
    from pdp.process.logs import configure_logs
    from pdp.settings import Settings

    settings = Settings.load(config)
    configure_logs("critical", "console")
    text = token_text(token)
    text = text.strip()
    with waiting("reading the keys of the issuer"):
        verdict = verify_token(text, settings, wall_clock)
    now = wall_clock()
    if not isinstance(verdict, RefusedToken):
        say_marked("accepted", "green", f"fingerprint {verdict.fingerprint}")
        for line in (*_verified_lines(verdict), *_claim_lines(verdict.claims, now)):
            say(line)
        return
    reports = {issuer.issuer: examine_keys(issuer) for issuer in settings.issuers}
    say_marked("refused", "red", refusal_text(verdict.reason, text, settings, reports, now))
    stated = read_unverified(text)
    if stated is not None:
        known = "of a valid signature" if verdict.actor is not None else "NOT VERIFIED"
        say(f"what it states, {known}:")
        for line in _claim_lines(stated[1], now):
            say(f"  {line}")
    raise typer.Exit(1)


def _verified_lines(token: "VerifiedToken") -> Iterator[str]:
    actor = token.actor
    if actor.organization_id is not None:
        role = token.claimed_organization_role
        claimed = f" (claims to be {role}; the database decides)" if role else ""
        yield f"active organization: {actor.organization_id}{claimed}"
    if token.claimed_permissions:
        yield f"claimed permissions: {', '.join(token.claimed_permissions)}"
    yield f"key: {token.key_id or 'without kid'}"
    for name, minutes in (
        ("first factor", token.first_factor_minutes),
        ("second factor", token.second_factor_minutes),
    ):
        yield f"{name}: " + ("not known" if minutes is None else f"verified {minutes:g} min before")


def _claim_lines(claims: Mapping[str, Any], now: float) -> Iterator[str]:
    for title, name in (
        ("user", "sub"),
        ("session", "sid"),
        ("issuer", "iss"),
        ("authorized party", "azp"),
        ("audience", "aud"),
        ("impersonated by", "act"),
        ("token id", "jti"),
    ):
        if name in claims:
            yield f"{title}: {_shown(claims[name])}"
    for title, name in (("issued", "iat"), ("not before", "nbf"), ("expires", "exp")):
        if name in claims:
            yield f"{title}: {_time(claims[name], now)}"
    for name in sorted(set(claims) - _EXPLAINED):
        yield f"claim {name}: {_shown(claims[name])}"


def _time(value: Any, now: float) -> str:

    try:
        when = utc_text(float(value))
    except (TypeError, ValueError, OverflowError, OSError):
        return f"{_shown(value)}, which is no time"
    seconds = float(value) - now
    return f"{when}, " + (f"in {seconds:.0f} s" if seconds > 0 else f"{-seconds:.0f} s ago")


def _shown(value: Any) -> str:
    """Untrusted: bounded in length; what does not print is escaped where it is printed."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else f"{text[:_SHOWN_CHARACTERS_MAX]}..."


def _private_key(path: Path) -> str:
    """The PEM of a local key; where there is none, a new pair, the private half for its owner
    alone."""
    from pdp.identity import generate_key_pair

    if path.exists():
        return path.read_text()
    pair = generate_key_pair()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(pair.private_pem)
    path.with_name(path.name + ".pub").write_text(pair.public_pem)
    note(f"made {path} and {path}.pub")
    return pair.private_pem
