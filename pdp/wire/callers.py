"""Authenticates callers: the backends that hold a stub, not the actors of their questions.

A caller authenticates with an API key (metadata `authorization: Bearer <key>`), or with a client
certificate whose only URI subject alternative name equals a configured one. Other metadata does not
identify a caller: `x-forwarded-*` and the like are ignored.
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
    """An authenticated backend."""

    name: str
    may: frozenset[Capability]


class Proof(NamedTuple):
    """The credentials of a peer."""

    authorizations: Sequence[bytes]
    """The values of `authorization`."""
    certificate: bytes | None
    """The PEM certificate, verified by TLS."""


ANONYMOUS = Caller("anonymous", ALL_CAPABILITIES)


class Callers:
    """The configured callers. If none is configured, every caller is `anonymous` (settings allow
    that on loopback only, or with --insecure)."""

    def __init__(self, callers: Sequence[CallerSettings]) -> None:
        self._by_key = {
            bytes.fromhex(settings.api_key_sha256): Caller(settings.name, settings.may)
            for settings in callers
            if settings.api_key_sha256 is not None
        }
        self._by_spiffe_id = {
            settings.spiffe_id: Caller(settings.name, settings.may)
            for settings in callers
            if settings.spiffe_id is not None
        }
        self.open: Final = not callers
        """Whether callers need no credentials."""
        self.several: Final = len(callers) > 1

    def identify(self, proof: Proof) -> Caller:
        """Authenticates the caller of an RPC. Raises CallerUnauthenticated."""
        if self.open:
            return ANONYMOUS
        if self._by_spiffe_id and proof.certificate is not None:
            caller = self._by_spiffe_id.get(_spiffe_id(proof.certificate))
            if caller is not None:
                return caller
        key = _api_key(proof.authorizations)
        # The lookup by SHA-256 leaks nothing about the key through its timing.
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
    """The only URI name of a verified certificate, or "", which is no caller's name."""
    try:
        names = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return ""
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    return uris[0] if len(uris) == 1 else ""
