"""The decoder of the active organization: one permission too many is a hole."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.identity.organization_claims import (
    OrganizationClaims,
    OrganizationClaimsInvalid,
    decode_organization,
    without_look_alikes,
)


def decode_v2(fea: Any = None, per: Any = None, fpm: Any = None) -> list[str]:
    o = {"id": "org_a", "rol": "admin", "slg": "a", "per": per, "fpm": fpm}
    decoded = decode_organization({"v": 2, "fea": fea, "o": o})
    assert decoded is not None
    assert (decoded.id, decoded.role, decoded.slug) == ("org_a", "org:admin", "a")
    return [name.removeprefix("org:") for name in decoded.permissions]


@pytest.mark.parametrize(
    ("fea", "per", "fpm", "wanted"),
    [
        # as documented
        ("o:boards,o:teams", "manage,read", "3,2", ["boards:manage", "boards:read", "teams:read"]),
        ("o:a,uo:b,u:gold", "read,edit", "1,2,0", ["a:read", "b:edit"]),
        ("ou:a,u:gold", "read,edit", "3,0", ["a:edit", "a:read"]),
        ("o:a,o:b,o:c", "read,edit", "1,2", ["a:read", "b:edit"]),
        ("o:a", "read,edit", "1,3", ["a:read"]),
        ("o:a", "read,edit", "0002", ["a:edit"]),
        ("o:a,o:b", "read,edit", "0,3", ["b:edit", "b:read"]),
        # the readings disagree if a user feature comes first: only what both grant
        ("u:gold,o:a", "read,edit", "0,3", []),
        ("u:gold,o:a", "read,edit", "3", []),
        ("u:gold,o:a", "read,edit", "1,3", ["a:read"]),
        # other scopes keep their place and grant nothing
        ("foo:a,o:b", "read,edit", "3,1", ["b:read"]),
        ("O:a", "read", "1", []),
        (" o:a", "read", "1", []),
        # malformed: nothing
        ("a,o:b", "read,edit", "3,3", []),
        ("o:a:b", "read", "1", []),
        ("o:", "read", "1", []),
        ("o:a b", "read", "1", []),
        ("o:a", "read,", "3", ["a:read"]),
        ("o:a", "read, edit", "3", ["a:read"]),
        ("o:a", "", "1", []),
        ("", "read", "1", []),
        (None, "read", "1", []),
        ("o:a", None, "1", []),
        ("o:a", "read", None, []),
        (["o:a"], "read", "1", []),
        ("o:a", "read", 1, []),
        # masks
        ("o:a", "read,edit", "4", []),
        ("o:a", "read,edit", "7", []),
        ("o:a", "read,edit", "-1", []),
        ("o:a", "read,edit", "+1", []),
        ("o:a", "read,edit", "1_1", []),
        ("o:a", "read,edit", "\u0663", []),
        ("o:a", "read,edit", "0x3", []),
        ("o:a", "read,edit", "1\n", []),
        ("o:a", "read,edit", "9" * 5000, []),
    ],
)
def test_permissions_are_what_every_public_reading_grants(
    fea: Any, per: Any, fpm: Any, wanted: list
) -> None:
    assert decode_v2(fea, per, fpm) == wanted


def test_masks_are_exact_past_the_integers_of_a_double() -> None:
    per = ",".join(f"p{i}" for i in range(54))
    assert decode_v2("o:a", per, str(2**53 + 1)) == ["a:p0", "a:p53"]
    assert decode_v2("o:a", per, str(2**54)) == []


@pytest.mark.parametrize(
    ("role", "wanted"),
    [("admin", "org:admin"), ("org:admin", "org:admin"), (None, None), ("", None)],
)
def test_a_version_2_role_gets_its_prefix_once(role: str | None, wanted: str | None) -> None:
    decoded = decode_organization({"v": 2, "o": {"id": "org_a", "rol": role}})
    assert decoded == OrganizationClaims(id="org_a", role=wanted)


def test_version_1_is_read_as_it_is() -> None:
    claims = {
        "org_id": "org_a",
        "org_slug": "a",
        "org_role": "admin",
        "org_permissions": ["org:b:read", "org:a:read", "org:a:read"],
    }
    assert decode_organization(claims) == OrganizationClaims(
        id="org_a", slug="a", role="admin", permissions=("org:a:read", "org:b:read")
    )
    assert decode_organization({}) is None
    assert decode_organization({"org_role": "org:admin"}) is None
    nothing = {"org_id": None, "org_slug": None, "org_role": None, "org_permissions": None}
    assert decode_organization(nothing) is None
    assert decode_organization({**nothing, "org_id": "org_a"}) == OrganizationClaims(id="org_a")
    assert decode_organization({"v": 2}) is None


@pytest.mark.parametrize(
    "claims",
    [
        {"o": {"id": "org_a"}},
        {"org_id": ""},
        {"org_id": 7},
        {"org_id": False},
        {"org_id": "org_a", "org_permissions": "org:a:read"},
        {"org_id": "org_a", "org_permissions": [7]},
        {"org_id": "org_a", "org_role": 7},
        {"org_id": "org_a", "org_permissions": ""},
        {"org_id": "org_a", "org_permissions": 0},
        {"v": None, "org_id": "org_a"},
        {"v": 2, "o": {"id": "org_a", "rol": ["admin"]}},
        {"v": 2, "o": {"id": "org_a\u200b"}},
        {"v": 2, "o": {"id": "o" * 257}},
        {"v": 0},
        {"v": 2.0, "o": {"id": "org_a"}},
        {"v": True},
    ],
)
def test_claims_made_to_be_misread_are_refused(claims: dict) -> None:
    with pytest.raises(OrganizationClaimsInvalid):
        decode_organization(claims)


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.just("org_evil"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(
    custom=st.dictionaries(
        st.sampled_from(["org_id", "org_slug", "org_role", "org_permissions"]), _ANYTHING
    ),
    own=st.sampled_from([{"v": 2}, {"v": 2, "o": {"id": "org_a", "rol": "member"}}]),
)
def test_the_names_of_version_1_say_nothing_in_version_2(custom: dict, own: dict) -> None:
    assert decode_organization({**custom, **own}) == decode_organization(own)
    assert without_look_alikes({**custom, **own}) == own
    assert without_look_alikes(custom) == custom


_FEATURES = st.lists(
    st.tuples(st.sampled_from(["o", "u", "uo", "ou"]), st.sampled_from("abcd")), max_size=5
)


@given(
    features=_FEATURES,
    names=st.lists(st.sampled_from(["read", "edit", "drop"]), max_size=3),
    masks=st.lists(st.integers(0, 15), max_size=6),
)
def test_nothing_is_granted_that_the_documented_reading_does_not_grant(
    features: list, names: list, masks: list
) -> None:
    """Against a slow reading of Clerk's documentation: mask i is of element i of the whole `fea`.
    Where no user feature precedes an organization one the two are equal."""
    documented = set()
    for i, (scope, feature) in enumerate(features):
        mask = masks[i] if i < len(masks) else 0
        if "o" in scope and mask < 2 ** max(1, len(names)):
            documented |= {f"{feature}:{n}" for j, n in enumerate(names) if mask & 2**j}
    got = set(
        decode_v2(
            ",".join(f"{s}:{f}" for s, f in features), ",".join(names), ",".join(map(str, masks))
        )
    )
    assert got <= documented
    scopes = [scope for scope, _ in features]
    if scopes == sorted(scopes, key=lambda scope: scope == "u"):
        assert got == documented
