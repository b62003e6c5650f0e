"""Every peer by name.

A server has NAME, `install() -> str` (its version; raises BenchError) and
`checking(directory, signer, rules)`, a context manager with the target of an allow.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.load import Target
from bench.peers import cerbos, opa, openfga, pycasbin
from bench.signer import Signer


@dataclass(frozen=True, slots=True)
class Peer:
    """A subject beside this PDP."""

    name: str
    install: Callable[[], str]
    checking: Callable[[Path, Signer, int], AbstractContextManager[Target]] | None
    """None: it is no server."""
    usual: bool
    """Whether it is measured by default, and then at every size of policy."""


_opa_cached = partial(opa.checking, caches_tokens=True)

PEERS: Mapping[str, Peer] = {
    "cerbos": Peer(cerbos.NAME, cerbos.install, cerbos.checking, usual=True),
    "opa": Peer(opa.NAME, opa.install, opa.checking, usual=False),
    "opa-cached": Peer(opa.CACHING_NAME, opa.install, _opa_cached, usual=False),
    "openfga": Peer(openfga.NAME, openfga.install, openfga.checking, usual=False),
    "pycasbin": Peer(pycasbin.NAME, pycasbin.install, None, usual=True),
}
