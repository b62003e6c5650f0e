"""`pdp token` and `pdp key`: development tokens, and API keys for callers."""

import hashlib
import os
import secrets
from pathlib import Path
from typing import Annotated

import typer

from pdp.cli.output import emit, note

DEVELOPMENT_ISSUER = "http://localhost/pdp-development"

_RANDOM_BYTES = 32


def token(
    user: Annotated[str, typer.Option(help="Clerk user id, e.g. user_ada.")],
    organization: Annotated[
        str | None, typer.Option(help="Active organization, e.g. org_school.")
    ] = None,
    organization_role: Annotated[
        str | None, typer.Option(help="Claimed organization role (the database decides).")
    ] = None,
    session: Annotated[str, typer.Option(help="Clerk session id.")] = "sess_development",
    key: Annotated[
        Path, typer.Option(help="Private key (PEM); made where there is none, beside KEY.pub.")
    ] = Path("development.pem"),
    issuer: Annotated[str, typer.Option(help="Issuer claim.")] = DEVELOPMENT_ISSUER,
    seconds: Annotated[int, typer.Option(min=-3600, max=3600, help="Lifetime.")] = 60,
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


def key() -> None:
    """Makes an API key for a caller: the key for the caller, its digest for the settings."""
    api_key = f"pdp_{secrets.token_urlsafe(_RANDOM_BYTES)}"
    emit(f"api_key        {api_key}\n")
    emit(f"api_key_sha256 {hashlib.sha256(api_key.encode()).hexdigest()}\n")


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
