"""`pdp key`: API keys for callers."""

from pdp.cli.output import emit

_RANDOM_BYTES = 32


def key() -> None:
    """Makes an API key for a caller: the key for the caller, its digest for the settings."""
    import hashlib
    import secrets

    api_key = f"pdp_{secrets.token_urlsafe(_RANDOM_BYTES)}"
    emit(f"api_key        {api_key}\n")
    emit(f"api_key_sha256 {hashlib.sha256(api_key.encode()).hexdigest()}\n")
