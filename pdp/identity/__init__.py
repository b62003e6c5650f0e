"""Room 2: a Clerk session token -> who asks.

In: the text of a token, the configured issuers. Out: `VerifiedToken`, or `RefusedToken` with the
reason. The only room that imports jwt. `errors.KeysUnavailable` is raised where no answer can be
given because the issuer's keys are not at hand: that is no refusal.

Never: follows a URL that a token names; accepts a token because a check is not configured to be
possible; asks a database; logs, keeps or returns a token (its SHA-256 is kept as a cache key, 16
digits of it are returned); trusts a role that a token claims.

Invariants:

- Order of the checks: shape and length, header, issuer and key, signature, claims. Before the
  signature has verified, the payload is read for `iss` alone, to choose among configured issuers.
- Issuers share nothing: a key is looked up by (issuer, kid), never by kid alone. With a PEM key
  the kid is not looked at.
- Only RS256 with RSA keys of 2048 to 8192 bits. Keys are parsed once, into key objects.
- The library verifies the signature; every claim is checked here, each with a reason of its own,
  and times compare as Clerk compares them: expired when exp <= now - skew, early when
  nbf > now + skew or iat > now + skew.
- Refusals are never cached. A cached token is returned only while it is in time and the key that
  verified it is still the issuer's key of that kid.
- A key set that was fetched once serves until a better one arrives; an unknown kid causes at most
  one fetch per cooldown and issuer, however many tokens ask.
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
