"""Names of variables: which of those that are set does nothing know?

A misspelled `PDP_DATBASE_URL` would leave a server on the default, an empty SQLite file.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel

PREFIX = "PDP_"
COMMAND_LINE = frozenset(
    f"{PREFIX}{name}"
    for name in ("SERVER", "API_KEY", "CA_FILE", "CERTIFICATE_FILE", "KEY_FILE", "TOKEN")
)
"""What commands read that ask a server."""
OTHERS = frozenset(
    f"{PREFIX}{name}"
    for name in (
        *("EMBEDDED_LINK", "EMBEDDED_ORIGIN"),  # between our own processes
        *("BROWSER", "CHROMIUM", "CONFORMANCE", "PYTHON", "TEST_POSTGRES_URL"),  # tests
        *("DEADLINE_MS", "GUARD", "ROUTES"),  # examples
    )
)
_KUBERNETES = re.compile(
    r"PDP_(PORT|PORT_.*|SERVICE_.*|(.*_)?SERVICE_(HOST|PORT|PORT_.*)|.*_(TCP|UDP|SCTP)(_.*)?)"
)
"""What Kubernetes sets in each pod for a Service called `pdp`, or `pdp-...`.

Source: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
"""
_KUBERNETES_PORT = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)
_CUTOFF = 0.7


def unknown_variables(
    environment: Mapping[str, str], prefixes: Mapping[str, type[BaseModel]]
) -> dict[str, str]:
    """Variables that begin as ours and that nothing reads -> a sentence about each.

    Args:
        environment: Names and values of all variables.
        prefixes: Of each program's variables, and its settings.
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
            # A table; what a list of tables holds has no variables.
            for inner in _tables(field.annotation):
                yield from (f"{prefix}{name}__{key}".upper() for key in inner.model_fields)


def _tables(annotation: Any) -> Iterator[type[BaseModel]]:
    candidates = (annotation, *(get_args(annotation) if type(None) in get_args(annotation) else ()))
    for one in candidates:
        if isinstance(one, type) and issubclass(one, BaseModel):
            yield one
