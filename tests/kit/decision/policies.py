"""Hypothesis strategies: whole policy documents whose references are sound."""

import dataclasses
from typing import Any

from hypothesis import strategies as st
from pdp_routes import PUBLIC, Needs

from pdp.document import PolicyDocument, derived_grant_id, derived_rule_id
from pdp.model import (
    EVERYWHERE,
    Effect,
    Grant,
    InOrganization,
    Membership,
    OnResource,
    Organization,
    Permission,
    Resource,
    ResourceRef,
    ResourceType,
    Role,
    Route,
    Rule,
    Tenancy,
    ToOrganizationRole,
    ToUser,
    User,
    UserStatus,
    key_of,
)

NAMES = [f"{kind}:{action}" for kind in ("course", "no", "a.b-c") for action in ("edit", "on", "x")]
CONDITIONS = [
    "",
    "true",
    "actor.id == resource.attributes.owner",
    'actor.id == "a: b # c"\n  && has(context.x)',
    "// comment\ntrue\n",
]
# what YAML 1.1, quoting, folding and line breaks could change
AWKWARD = ["no", "on", "~", "null", "0123", "1", "1e5", "2026-01-01", "<<", "=", " a ", "a: b"]
AWKWARD += ["- a", "#", "'", '"', "\\", "\u2028", "\ufeff", "\u00a0", "\U0001f600", "%", "\u017f"]
AWKWARD += ["a" * 200 + " b"]

# as far as they are allowed, what YAML could read otherwise
ROUTES = ["/", "/**", "/no", "GET /~", "HEAD /-", "/a:b/", "/'", "/!x/&y/$z", "/,", "/=", "/@"]
ROUTES += [f"/{'long' * 50}", "M-SEARCH /x", "/null/0123"]
ROUTES_WITH_ID = ["/x/{id}", "PUT /x/{id}", "/x/{id}/**", "/x/{id}/y/{other}"]

identifiers = st.sampled_from([*AWKWARD, "user_1", "User_1", "org_1"]) | st.text(
    st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20
)
prose = st.sampled_from(["", *AWKWARD, "two\nlines", "\ttab", "end\n", "\n"]) | st.text(
    st.characters(exclude_categories=["Cc", "Cs"], include_characters="\n\t"), max_size=40
)
numbers = st.integers(-(2**53), 2**53).map(float) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=10)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts | st.sampled_from(AWKWARD),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
attributes = st.dictionaries(texts | st.sampled_from(AWKWARD[:9]), values, max_size=3)
moments = st.none() | st.integers(-(10**15), 2 * 10**15).map(lambda n: n / 1_000_000)


@st.composite
def documents(draw: st.DrawFn) -> PolicyDocument:
    """A document that names every section, each ordered by key."""
    permissions = draw(_few(st.builds(Permission, st.sampled_from(NAMES), prose), minimum=1))
    names = sorted(draw(st.sets(st.sampled_from(["ADMIN", "a.B", "no", "R:1", "Z"]), min_size=1)))
    roles = tuple(
        # a role inherits from later ones only, hence never in a circle
        Role(
            name, draw(prose), tuple(sorted(draw(st.sets(st.sampled_from(later))))) if later else ()
        )
        for name, later in ((name, names[index + 1 :]) for index, name in enumerate(names))
    )
    patterns = ["*", *(p.name for p in permissions)]
    patterns += [f"{p.name.partition(':')[0]}:*" for p in permissions]
    rules = draw(
        _few(
            st.builds(
                Rule,
                st.sampled_from(["", "", "my-rule", "2/x", "ADMIN.allow.*"]),
                st.sampled_from(names),
                st.sampled_from(Effect),
                st.sampled_from(patterns),
                st.sampled_from(CONDITIONS),
                prose,
            ).map(lambda rule: rule if rule.id else _with_id(rule, derived_rule_id(rule)))
        )
    )
    refs = st.builds(ResourceRef, st.sampled_from(["course", "no"]), identifiers)
    grants = draw(
        _few(
            st.builds(
                Grant,
                st.just("") | identifiers,
                st.sampled_from(names),
                st.builds(ToUser, identifiers) | st.builds(ToOrganizationRole, identifiers),
                st.just(EVERYWHERE)
                | st.builds(InOrganization, identifiers)
                | st.builds(OnResource, refs),
                moments,
                moments,
            )
            .filter(lambda g: None in (g.not_before, g.expires_at) or g.not_before < g.expires_at)
            .map(lambda grant: grant if grant.id else _with_id(grant, derived_grant_id(grant)))
        )
    )
    users = st.builds(User, identifiers, prose, prose, st.sampled_from(UserStatus), attributes)
    kinds = st.sampled_from(["course", "no", "none", "organization"])
    resource_types = st.builds(ResourceType, kinds, st.sampled_from(Tenancy), st.booleans())
    return PolicyDocument(
        permissions,
        draw(_few(resource_types)),
        roles,
        rules,
        grants,
        draw(_routes([permission.name for permission in permissions])),
        draw(_few(users)),
        draw(_few(st.builds(Organization, identifiers, prose, prose))),
        draw(_few(st.builds(Membership, identifiers, identifiers, identifiers))),
        draw(_resources()),
    )


@st.composite
def _routes(draw: st.DrawFn, permissions: list[str]) -> tuple[Route, ...]:
    needs = st.builds(Needs, st.sampled_from(permissions)) | st.just(PUBLIC)
    found = {route: draw(needs) for route in draw(st.sets(st.sampled_from(ROUTES)))}
    on_resource = st.builds(Needs, st.sampled_from(permissions), st.just("no/{id}"))
    for route in draw(st.sets(st.sampled_from(ROUTES_WITH_ID))):
        found[route] = draw(on_resource | needs)
    return tuple(Route(route, found[route]) for route in sorted(found))


@st.composite
def _resources(draw: st.DrawFn) -> tuple[Resource, ...]:
    kinds = st.sampled_from(["course", "no"])
    organizations = st.none() | identifiers
    roots = draw(
        _few(st.builds(Resource, kinds, identifiers, organizations, st.none(), attributes))
    )
    found = {key_of(root): root for root in roots}
    for above in roots:
        ref = ResourceRef(above.type, above.id)
        child = Resource(
            draw(kinds), draw(identifiers), above.organization_id, ref, draw(attributes)
        )
        found.setdefault(key_of(child), child)
    return tuple(found[key] for key in sorted(found))


def _few(entities: st.SearchStrategy[Any], minimum: int = 0) -> st.SearchStrategy[Any]:
    several = st.lists(entities, unique_by=key_of, min_size=minimum, max_size=4)
    return several.map(lambda found: tuple(sorted(found, key=key_of)))


def _with_id(entity: Any, derived: str) -> Any:
    return dataclasses.replace(entity, id=derived)
