"""Checks whether an issuer's keys can be read now: for `pdp clerk doctor`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import httpx

from pdp.identity.key_sets import examine_key_set, key_set_url
from pdp.identity.keys import KeyRefused, parse_pem, pem_of
from pdp.outgoing import BoundExceeded
from pdp.settings import IssuerSettings


@dataclass(frozen=True, slots=True)
class KeysReport:
    """The result of one attempt to read an issuer's keys."""

    source: str
    """The URL of the key set, or `PEM`."""
    problem: str = ""
    """Why there is no usable key; empty: there is one."""
    kids: Sequence[str] = ()
    """The kids of the usable keys of a key set. A PEM text has none."""
    ignored: Sequence[tuple[str, str]] = ()
    """(kid or position, why it is not used)."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of the HTTP response, names in lower case; empty if there was none."""


def examine_keys(issuer: IssuerSettings) -> KeysReport:
    """Parses the issuer's PEM text, or fetches its key set once, as the verifier would."""
    if issuer.public_key is not None or issuer.public_key_file is not None:
        return KeysReport("PEM", problem=_pem_problem(issuer))
    url = key_set_url(issuer)
    try:
        content, headers = examine_key_set(url)
    except KeyRefused as error:
        return KeysReport(url, problem=str(error))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        if isinstance(error, BoundExceeded):
            return KeysReport(url, problem=str(error))
        # The text of a failed connection comes from the operating system.
        detail = f": {error}" if isinstance(error, httpx.ConnectError) else ""
        return KeysReport(url, problem=f"cannot be reached ({type(error).__name__}{detail})")
    problem = "" if content.keys else "holds no usable key"
    return KeysReport(url, problem, sorted(content.keys), content.ignored, headers)


def _pem_problem(issuer: IssuerSettings) -> str:
    try:
        parse_pem(pem_of(issuer) or "")
    except OSError as error:
        return f"the file cannot be read: {error.strerror}"
    except (KeyRefused, UnicodeDecodeError) as error:
        return str(error) if isinstance(error, KeyRefused) else "the file is not text"
    return ""
