"""Finds variables that are set and not known.

With a misspelled `PDP_DATBASE_URL` a server would use the default, an empty SQLite file.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel

PREFIX = "PDP_"
COMMAND_LINE = frozenset(
    f"{PREFIX}{name}"
    for name in (
        *("SERVER", "API_KEY", "CA_FILE", "CERTIFICATE_FILE", "KEY_FILE", "TOKEN", "CONTEXT"),
    )
)
"""Variables of the commands that call a server."""
OTHERS = frozenset(
    f"{PREFIX}{name}"
    for name in (
        *("EMBEDDED_LINK", "EMBEDDED_ORIGIN"),  # between our own processes
        *("BROWSER", "CHROMIUM", "CONFORMANCE", "PYTHON", "TEST_POSTGRES_URL"),  # tests
        *("DEADLINE_MS", "DEADLINE_SECONDS", "GUARD", "ROUTES"),  # examples
    )
)
_KUBERNETES = re.compile(
    r"PDP_(PORT|PORT_.*|SERVICE_.*|(.*_)?SERVICE_(HOST|PORT|PORT_.*)|.*_(TCP|UDP|SCTP)(_.*)?)"
)
"""Variables that Kubernetes sets in each pod for a Service named `pdp` or `pdp-...`.

Source: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
"""
_KUBERNETES_PORT = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)
_CUTOFF = 0.7


def unknown_variables(
    environment: Mapping[str, str], prefixes: Mapping[str, type[BaseModel]]
) -> dict[str, str]:
    """Finds variables with our prefix that are not known; returns a sentence about each.

    Args:
        environment: Names and values of all variables.
        prefixes: The settings of each program, by prefix.
    """
    known = COMMAND_LINE | OTHERS | set(_known(prefixes))
    found = {}
    for name, value in environment.items():
        upper = name.upper()  # variables of settings are read in any letter case
        if upper.startswith(PREFIX) and upper not in known and not _is_of_kubernetes(upper, value):
            found[name] = sentence(name, upper, known)
    return found


def sentence(name: str, upper: str, known: Iterable[str]) -> str:
    """The warning about an unknown name."""
    near = difflib.get_close_matches(upper, sorted(known), 1, _CUTOFF)
    return f"there is no setting {name}" + (f"; did you mean {near[0]}?" if near else "")


def _is_of_kubernetes(upper: str, value: str) -> bool:
    if _KUBERNETES.fullmatch(upper):
        return True
    return upper.endswith("_PORT") and _KUBERNETES_PORT.match(value) is not None


def _known(prefixes: Mapping[str, type[BaseModel]]) -> Iterator[str]:
    for prefix, settings in prefixes.items():
        yield f"{prefix}CONFIG"
        for name, field in settings.model_fields.items():
            yield f"{prefix}{name.upper()}"
            # Tables have variables; lists of tables have none.
            for inner in _tables(field.annotation):
                yield from (f"{prefix}{name}__{key}".upper() for key in inner.model_fields)


def _tables(annotation: Any) -> Iterator[type[BaseModel]]:
    candidates = (annotation, *(get_args(annotation) if type(None) in get_args(annotation) else ()))
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            yield candidate
