"""A Clerk session token -> the actor.

In: the text of a token, the configured issuers. Out: `VerifiedToken`, or `RefusedToken` with the
reason. Only this package imports jwt. `errors.KeysUnavailable` is raised if the issuer's keys are
not available: that is not a refusal.

Never: follows a URL from a token; accepts a token because a check is not possible with the
configuration; reads a database; logs, stores or returns a token (its SHA-256 is a cache key, and 16
digits of it are returned); trusts a role that a token claims.

Invariants:

- Order of the checks: shape and length, header, issuer and key, signature, claims. Before the
  signature is verified, only `iss` is read from the payload, to choose a configured issuer.
- Issuers share nothing: a key is looked up by (issuer, kid), never by kid alone. With a PEM key
  the kid is ignored.
- Only RS256 with RSA keys of 2048 to 8192 bits. Keys are parsed once, into key objects.
- The library verifies the signature; every claim is checked here, with a reason for each, and times
  are compared as Clerk does: expired if exp <= now - skew, not yet valid if nbf > now + skew or
  iat > now + skew.
- Refusals are never cached. A cached token is returned only while its times are valid and its kid
  still names the key that verified it.
- A fetched key set is used until a better one arrives; unknown kids cause at most one fetch per
  cooldown and issuer, however many tokens name them.
"""

from pdp.identity.examination import KeysReport, examine_keys
from pdp.identity.key_sets import KeyFetches
from pdp.identity.mint import KeyPair, generate_key_pair, mint_development_token
from pdp.identity.verifier import Verifier, read_unverified

__all__ = [
    "KeyFetches",
    "KeyPair",
    "KeysReport",
    "Verifier",
    "examine_keys",
    "generate_key_pair",
    "mint_development_token",
    "read_unverified",
]
