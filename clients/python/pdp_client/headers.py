"""Finds the session token of a request. Knows no framework."""

from collections.abc import Iterable, Mapping

SESSION_COOKIE = "__session"
"""The cookie in which Clerk's front ends keep the token."""

_SPACE = " \t"


def session_token(
    headers: Mapping[str, str] | Iterable[tuple[str, str]], cookie_name: str = SESSION_COOKIE
) -> str:
    """The token by the rules of docs/guards.md, "The token of a request"; empty: there is none.

    `headers`: names in any letter case; a repeated header is several pairs.
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    credentials, cookies = [], []
    for name, value in pairs:
        match name.lower():
            case "authorization":
                credentials.append(value.strip(_SPACE))
            case "cookie":
                cookies.append(value)
    if len(credentials) > 1:
        return ""
    if credentials:
        scheme = credentials[0].replace("\t", " ").partition(" ")[0]
        if scheme.lower() == "bearer":
            return credentials[0][len(scheme) :].strip(_SPACE)
    return _only_cookie(cookies, cookie_name)


def _only_cookie(headers: Iterable[str], wanted: str) -> str:
    """The value of the only cookie with this name, as it was sent. RFC 6265, section 4.2.1."""
    found = []
    for pair in ";".join(headers).split(";"):
        name, _, value = pair.partition("=")
        if name.strip(_SPACE) == wanted:
            found.append(value.strip(_SPACE))
    return found[0] if len(found) == 1 else ""
