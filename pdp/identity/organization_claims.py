"""Decodes the active organization that a session token claims, version 1 and 2. Pure.

Version 2 packs permissions: `fea` lists features (`o:projects,u:gold`), `o.per` permission names,
and `o.fpm` one decimal mask per feature, whose bit j (lowest first) grants `per[j]`. Clerk's own
libraries disagree in corner cases; only what all of them grant is granted here:

- Mask i belongs to element i of the whole `fea` (Clerk's documentation, Go, Python), but
  @clerk/backend counts organization features only. Only what both readings grant is granted; they
  differ only if a user feature comes before an organization feature.
- Scopes are exactly `o`, `u`, `ou`, `uo`; other elements keep their index and grant nothing. An
  element without a colon makes all of `fea` void.
- Masks are ASCII digits. A bit beyond `per` makes the mask void. Empty or padded names grant
  nothing.

In version 2 the names of version 1 (`org_id` ...) can only be custom claims: they are never read,
as in Clerk's own decoder, and `without_look_alikes` hides them from conditions. In version 1 a
token with the name of version 2 (`o`) is refused: nobody needs such a custom claim, and a reader of
the wrong version takes it for an organization.

Source: docs of Clerk, session tokens; clerk/javascript `packages/shared/src/jwtPayloadParser.ts`;
clerk/clerk-sdk-go `jwt/jwt.go`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pdp.limits import IDENTIFIER_CHARACTERS_MAX

_IDENTIFIER = re.compile(r"[!-~]+")
_MASK = re.compile(r"[0-9]{1,2000}")
_ORGANIZATION_SCOPES = frozenset(("o", "ou", "uo"))
_V1_NAMES = ("org_id", "org_slug", "org_role", "org_permissions")


class OrganizationClaimsInvalid(ValueError):
    """The claims about the organization are malformed: the token must be refused."""


@dataclass(frozen=True, slots=True)
class OrganizationClaims:
    """The active organization as the token claims it. Decisions never rely on it alone."""

    id: str
    slug: str | None = None
    role: str | None = None
    """With its prefix in version 2 (`org:admin`); in version 1 as in the token."""
    permissions: tuple[str, ...] = ()
    """`org:feature:action`, sorted."""


def decode_organization(claims: Mapping[str, Any]) -> OrganizationClaims | None:
    """Decodes the active organization of a session token; None if none is active.

    Raises:
        OrganizationClaimsInvalid: A claim is malformed, or `v` is neither absent nor the integer 2.
    """
    if "v" not in claims:
        return _decode_v1(claims)
    version = claims["v"]
    if type(version) is not int or version != 2:  # noqa: PLR2004  # True and 2.0 are not 2
        raise OrganizationClaimsInvalid("v")
    return _decode_v2(claims)


def without_look_alikes(claims: Mapping[str, Any]) -> Mapping[str, Any]:
    """The claims without custom claims that look like an organization of version 1.

    A condition written for version 1 tokens, in which Clerk sets `org_id`, must not read a custom
    claim of the application instead, which a user may control.
    """
    if "v" not in claims:
        return claims
    return {name: value for name, value in claims.items() if name not in _V1_NAMES}


def is_identifier(value: object) -> bool:
    """Whether a value can be an id of Clerk: visible ASCII of bounded length."""
    return (
        isinstance(value, str)
        and len(value) <= IDENTIFIER_CHARACTERS_MAX
        and _IDENTIFIER.fullmatch(value) is not None
    )


def _decode_v1(claims: Mapping[str, Any]) -> OrganizationClaims | None:
    if "o" in claims:
        raise OrganizationClaimsInvalid("o")
    if claims.get("org_id") is None:  # null too: a template of Clerk gives it without organization
        return None
    if not is_identifier(claims["org_id"]):
        raise OrganizationClaimsInvalid("org_id")
    permissions = claims.get("org_permissions")
    if permissions is None:
        permissions = []
    if not isinstance(permissions, list) or not all(isinstance(p, str) for p in permissions):
        raise OrganizationClaimsInvalid("org_permissions")
    return OrganizationClaims(
        id=claims["org_id"],
        slug=_text(claims, "org_slug"),
        role=_text(claims, "org_role"),
        permissions=tuple(sorted(set(permissions))),
    )


def _decode_v2(claims: Mapping[str, Any]) -> OrganizationClaims | None:
    if "o" not in claims:
        return None
    o = claims["o"]
    if not isinstance(o, dict) or not is_identifier(o.get("id")):
        raise OrganizationClaimsInvalid("o")
    role = _text(o, "rol")
    return OrganizationClaims(
        id=o["id"],
        slug=_text(o, "slg"),
        role="org:" + role.removeprefix("org:") if role else None,
        permissions=tuple(sorted(_permissions(claims.get("fea"), o.get("per"), o.get("fpm")))),
    )


def _text(claims: Mapping[str, Any], name: str) -> str | None:
    value = claims.get(name)
    if value is not None and not isinstance(value, str):
        raise OrganizationClaimsInvalid(name)
    return value


def _permissions(fea: object, per: object, fpm: object) -> set[str]:
    if not (isinstance(fea, str) and isinstance(per, str) and isinstance(fpm, str)):
        return set()
    elements = [element.partition(":") for element in fea.split(",")]
    if not all(colon for _, colon, _ in elements):
        return set()
    names = per.split(",")
    masks = [_mask(text, len(names)) for text in fpm.split(",")]
    of_whole = [name if scope in _ORGANIZATION_SCOPES else "" for scope, _, name in elements]
    of_organization = [name for scope, _, name in elements if scope in _ORGANIZATION_SCOPES]
    return _granted(of_whole, names, masks) & _granted(of_organization, names, masks)


def _mask(text: str, width: int) -> int:
    mask = int(text) if _MASK.fullmatch(text) else 0
    return mask if mask.bit_length() <= width else 0


def _granted(features: Sequence[str], names: Sequence[str], masks: Sequence[int]) -> set[str]:
    return {
        f"org:{feature}:{name}"
        for feature, mask in zip(features, masks, strict=False)  # missing masks grant nothing
        if ":" not in feature and _is_plain(feature)
        for bit, name in enumerate(names)
        if mask >> bit & 1 and _is_plain(name)
    }


def _is_plain(name: str) -> bool:
    return bool(name) and not any(character.isspace() for character in name)
