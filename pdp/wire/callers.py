"""Who calls: the backend that holds the stub, not the actor that the question is about.

A caller proves itself with an API key (metadata `authorization: Bearer <key>`) or with a client
certificate whose single URI subject alternative name is configured, exactly. No other metadata
says anything about a caller: `x-forwarded-*` and the like are ignored.
"""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from cryptography import x509

from pdp.errors import CallerUnauthenticated
from pdp.settings import ALL_CAPABILITIES, CallerSettings, Capability


@dataclass(frozen=True, slots=True)
class Caller:
    """A backend, as authenticated."""

    name: str
    may: frozenset[Capability]


class Proof(NamedTuple):
    """What a peer says of itself, and what TLS found out about it."""

    authorizations: Sequence[bytes]
    """Each value of `authorization`."""
    certificate: bytes | None
    """The PEM certificate that TLS has verified."""


ANONYMOUS = Caller("anonymous", ALL_CAPABILITIES)


class Callers:
    """The configured callers. None configured: everybody is `anonymous` (settings allow that on
    loopback only, or where the operator said --insecure)."""

    def __init__(self, callers: Sequence[CallerSettings]) -> None:
        self._by_key = {
            bytes.fromhex(one.api_key_sha256): Caller(one.name, one.may)
            for one in callers
            if one.api_key_sha256 is not None
        }
        self._by_spiffe_id = {
            one.spiffe_id: Caller(one.name, one.may) for one in callers if one.spiffe_id is not None
        }
        self.open: Final = not callers
        """Whether callers need no credentials."""
        self.several: Final = len(callers) > 1

    def identify(self, proof: Proof) -> Caller:
        """The caller of this RPC. Raises CallerUnauthenticated."""
        if self.open:
            return ANONYMOUS
        if self._by_spiffe_id and proof.certificate is not None:
            caller = self._by_spiffe_id.get(_spiffe_id(proof.certificate))
            if caller is not None:
                return caller
        key = _api_key(proof.authorizations)
        # A dictionary keyed by SHA-256 leaks nothing of the key by its timing.
        caller = self._by_key.get(hashlib.sha256(key).digest()) if key else None
        if caller is None:
            raise CallerUnauthenticated("the caller did not prove who it is")
        return caller


def _api_key(values: Sequence[bytes]) -> bytes | None:
    if len(values) != 1:
        return None
    scheme, _, key = values[0].partition(b" ")
    return key if scheme.lower() == b"bearer" and key else None


@functools.lru_cache(maxsize=256)
def _spiffe_id(pem: bytes) -> str:
    """The only URI name of a certificate that TLS has verified, or "" (which nobody is called)."""
    try:
        names = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return ""
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    return uris[0] if len(uris) == 1 else ""
