"""Page tokens: only the query that a token was made for accepts it."""

import base64
from typing import Any

import pytest
from pdpapi.v1.access_query_service_pb2 import ListAllowedResourcesRequest
from pdpapi.v1.administration_service_pb2 import ListRolesRequest, ListUsersRequest
from pdpapi.v1.audit_service_pb2 import ListDecisionsRequest

from pdp.errors import InvalidRequest
from pdp.wire.convert.pages import Pages, page_size

pages = Pages(lambda: b"s" * 32)
KEY = ("course", "al:ge/bra\x1f")


def with_token(request: ListDecisionsRequest, token: str) -> ListDecisionsRequest:
    copy = ListDecisionsRequest()
    copy.CopyFrom(request)
    copy.page_token = token
    return copy


def test_a_token_leads_back_to_its_key() -> None:
    request = ListDecisionsRequest(user_id="user_sam")
    assert pages.after(with_token(request, pages.token(request, KEY))) == KEY


def test_the_page_size_may_change_between_pages() -> None:
    request = ListDecisionsRequest(user_id="user_sam", page_size=5)
    following = with_token(request, pages.token(request, KEY))
    following.page_size = 50
    assert pages.after(following) == KEY


def test_no_altered_token_is_accepted() -> None:
    """Keto CVE-2026-33505, Hydra CVE-2026-33504: forged page tokens reached SQL."""
    request = ListDecisionsRequest(user_id="user_sam")
    token = pages.token(request, KEY)
    for index in range(len(token)):
        for replacement in "A", "_", "'":
            altered = token[:index] + replacement + token[index + 1 :]
            # The last base64 character holds unused bits: another spelling of the same signature.
            if altered == token or index == len(token) - 1:
                continue
            with pytest.raises(InvalidRequest):
                pages.after(with_token(request, altered))
    for cut in range(1, len(token)):
        with pytest.raises(InvalidRequest):
            pages.after(with_token(request, token[:cut]))


def test_a_token_of_another_query_method_or_deployment_is_refused() -> None:
    request = ListDecisionsRequest(user_id="user_sam")
    token = pages.token(request, KEY)
    with pytest.raises(InvalidRequest):
        pages.after(ListDecisionsRequest(user_id="user_ivan", page_token=token))
    with pytest.raises(InvalidRequest):
        Pages(lambda: b"t" * 32).after(with_token(request, token))
    roles = pages.token(ListRolesRequest(), ("ADMIN",))
    with pytest.raises(InvalidRequest):
        pages.after(ListUsersRequest(page_token=roles))


LIST = ListAllowedResourcesRequest(permission="course:view", resource_type="course")
PLACE = ("user_1", None, "secret-id")


def sealed(**changes: Any) -> ListAllowedResourcesRequest:
    """The request for the page behind PLACE."""
    request = ListAllowedResourcesRequest(page_token=pages.seal(LIST, PLACE))
    request.MergeFrom(LIST)
    for name, value in changes.items():
        setattr(request, name, value)
    return request


def test_a_sealed_token_leads_back_to_its_place_with_another_token_of_the_actor() -> None:
    """A session token lives for a minute."""
    assert pages.unseal(sealed(actor_token="next", page_size=5, at_least_revision=7)) == PLACE
    assert pages.unseal(LIST) is None


def test_nobody_reads_in_a_sealed_token_which_resource_was_looked_at_last() -> None:
    token = sealed().page_token
    assert b"secret-id" not in base64.urlsafe_b64decode(token)
    assert token != sealed().page_token


def test_no_altered_sealed_token_is_accepted() -> None:
    token = sealed().page_token
    altered = [token[:index] + "~" + token[index + 1 :] for index in range(len(token))]
    altered += [token[:cut] for cut in range(1, len(token))]
    raw = base64.urlsafe_b64decode(token)
    for index in range(len(raw)):
        flipped = raw[:index] + bytes((raw[index] ^ 1,)) + raw[index + 1 :]
        altered.append(base64.urlsafe_b64encode(flipped).decode())
    for other in (*altered, "\u00e9", pages.token(LIST, ["a"])):
        with pytest.raises(InvalidRequest):
            pages.unseal(sealed(page_token=other))


def test_a_sealed_token_of_another_query_or_deployment_is_refused() -> None:
    for changes in (
        {"permission": "course:edit"},
        {"resource_type": "lesson"},
    ):
        with pytest.raises(InvalidRequest):
            pages.unseal(sealed(**changes))
    with_context = sealed()
    with_context.context["place"] = "office"
    with pytest.raises(InvalidRequest):
        pages.unseal(with_context)
    with pytest.raises(InvalidRequest):
        Pages(lambda: b"t" * 32).unseal(sealed())


@pytest.mark.parametrize("size", [-1, 1001])
def test_a_page_size_out_of_bounds_is_refused(size: int) -> None:
    with pytest.raises(InvalidRequest, match="page_size"):
        page_size(ListRolesRequest(page_size=size))


def test_no_page_size_means_a_hundred() -> None:
    assert page_size(ListRolesRequest()) == 100


def test_a_cursor_leads_back_to_its_place_for_every_query_and_is_short() -> None:
    place = (1 << 62, 1 << 53, "0123456789abcdef")
    assert pages.place(pages.cursor(place)) == place
    assert len(pages.cursor(place)) < 200


def test_a_forged_or_transplanted_cursor_is_refused() -> None:
    """Keto CVE-2026-33505, SpiceDB GHSA-vhvq: tokens of pages that somebody else has made."""
    genuine = pages.cursor((1, 2, "x"))
    request = ListDecisionsRequest()
    page = pages.token(request, ("1", "2", "x"))
    others = Pages(lambda: b"t" * 32).cursor((1, 2, "x"))
    altered = [
        genuine[:n] + chr(ord(genuine[n]) ^ 1) + genuine[n + 1 :] for n in range(len(genuine))
    ]
    for token in ("x", page, others, genuine[:-1], genuine + "A", "\0", "A" * 100_000, *altered):
        with pytest.raises(InvalidRequest, match="cursor"):
            pages.place(token)
    with pytest.raises(InvalidRequest):
        pages.after(with_token(request, genuine))
