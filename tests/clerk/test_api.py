"""Clerk's Backend API, asked over a real socket.

A sync repairs what lost webhooks left behind, so it needs every object of every page, whatever
fails on the way.
"""

from collections.abc import Iterator
from contextlib import closing

import pytest
from structlog.testing import capture_logs

from pdp.clerk import api as module
from pdp.clerk.api import OVERLAP_ITEMS, PAGE_ITEMS, ClerkApi, OrganizationsOff, Page
from pdp.errors import ClerkError, ClerkRefused, ClerkUnavailable, ShuttingDown
from tests.kit.clerk.api_server import (
    SECRET_KEY,
    Answer,
    ClerkApiServer,
    Request,
    too_many,
    too_many_until,
)
from tests.kit.clerk.events import (
    INSTANCE_ID,
    T0,
    membership,
    organization,
    permission,
    role,
    user,
)
from tests.kit.stall import Stopwatch


@pytest.fixture(scope="module")
def shared_api(server: ClerkApiServer) -> Iterator[ClerkApi]:
    api = ClerkApi(SECRET_KEY, server.url, patience_seconds=5)
    yield api
    api.close()


@pytest.fixture
def clerk(server: ClerkApiServer) -> ClerkApiServer:
    server.reset()
    return server


@pytest.fixture
def api(clerk: ClerkApiServer, shared_api: ClerkApi) -> Iterator[ClerkApi]:
    yield shared_api
    assert not clerk.instead, "an answer was never asked for"


def all_ids(listed: "type[Page] | object") -> list[str]:
    ids, cursor = [], ""
    while True:
        page = listed(cursor)  # type: ignore[operator]
        ids += [object_["id"] for object_ in page.objects]
        cursor = page.cursor
        if not cursor:
            return ids


def users(count: int, created_at: int | None = None) -> list[dict[str, object]]:
    return [
        user(f"user_{n:05d}", created_at=T0 + n if created_at is None else created_at)
        for n in range(count)
    ]


# --- pages --------------------------------------------------------------------------------------


def test_users_of_several_pages_are_all_listed_oldest_first(
    clerk: ClerkApiServer, api: ClerkApi
) -> None:
    clerk.add(*reversed(users(2 * PAGE_ITEMS + 7)))
    ids = all_ids(api.users)
    assert list(dict.fromkeys(ids)) == [f"user_{n:05d}" for n in range(2 * PAGE_ITEMS + 7)]
    assert clerk.asked("/users") == 3
    assert len(ids) - len(set(ids)) == 2  # the last of a page begins the next


def test_users_created_in_the_same_millisecond_are_all_listed_though_they_fill_pages(
    clerk: ClerkApiServer, api: ClerkApi
) -> None:
    clerk.add(*users(2 * PAGE_ITEMS, created_at=T0), user("user_later", created_at=T0 + 1))
    assert set(all_ids(api.users)) == set(clerk.objects)


def test_a_list_that_fills_its_last_page_ends(clerk: ClerkApiServer, api: ClerkApi) -> None:
    clerk.add(*users(PAGE_ITEMS))
    assert len(set(all_ids(api.users))) == PAGE_ITEMS


def test_users_that_go_while_pages_are_read_hide_no_other(
    clerk: ClerkApiServer, api: ClerkApi
) -> None:
    everybody = users(3 * PAGE_ITEMS)
    clerk.add(*everybody)
    gone = [user["id"] for user in everybody[: PAGE_ITEMS - 1]]

    def delete_after_the_first_page(request: Request) -> None:
        if clerk.asked("/users") == 1:
            clerk.remove(*gone)

    clerk.on_request = delete_after_the_first_page
    assert set(all_ids(api.users)) == {user["id"] for user in everybody}


@pytest.mark.parametrize("count", [OVERLAP_ITEMS // 2, PAGE_ITEMS - 1, PAGE_ITEMS])
def test_memberships_that_go_while_pages_are_read_hide_no_other(
    clerk: ClerkApiServer, api: ClerkApi, count: int
) -> None:
    total = 2 * PAGE_ITEMS
    everything = [membership(f"orgmem_{n:05d}", created_at=T0 + n) for n in range(total)]
    clerk.add(*everything)
    gone = [object_["id"] for object_ in everything[:count]]

    def delete_after_the_first_page(request: Request) -> None:
        if clerk.asked("/organization_memberships") == 1:
            clerk.remove(*gone)

    clerk.on_request = delete_after_the_first_page
    assert set(all_ids(api.memberships)) == {object_["id"] for object_ in everything}


def test_organizations_roles_and_permissions_come_in_clerks_own_words(
    clerk: ClerkApiServer, api: ClerkApi
) -> None:
    edit = permission("perm_edit")
    objects = [organization("org_1"), edit, role("role_1", permissions=[edit])]
    clerk.add(*objects)
    assert api.organizations() == Page([objects[0]], "", 1, 1)
    assert api.permissions() == Page([edit], "", 1, 1)
    assert api.roles() == Page([objects[2]], "", 1, 1)
    assert api.instance_id() == INSTANCE_ID


def test_a_value_that_the_sdk_does_not_know_does_not_stop_the_page(
    clerk: ClerkApiServer, api: ClerkApi
) -> None:
    odd = user("user_odd", email="a@example.test")
    odd["email_addresses"][0]["verification"] = {"status": "by_pigeon", "strategy": "feathers"}
    odd["object"] = "user"
    clerk.add(odd, user("user_even", has_image="perhaps"))
    assert [user["id"] for user in api.users().objects] == ["user_odd", "user_even"]
    assert api.user("user_odd") == odd


# --- single objects -----------------------------------------------------------------------------


def test_a_missing_object_differs_from_one_that_exists(
    clerk: ClerkApiServer, api: ClerkApi
) -> None:
    clerk.add(user(), organization(), membership(), role(), permission())
    assert (api.user("user_1") or {})["id"] == "user_1"
    assert (api.organization("org_1") or {})["id"] == "org_1"
    assert (api.membership("org_1", "user_1") or {})["id"] == "orgmem_1"
    assert (api.role("role_1") or {})["id"] == "role_1"
    assert (api.permission("perm_1") or {})["id"] == "perm_1"
    assert api.user("user_2") is None
    assert api.organization("org_2") is None
    assert api.membership("org_1", "user_2") is None
    assert api.membership("org_2", "user_1") is None
    assert api.role("role_2") is None
    assert api.permission("perm_2") is None


def test_an_id_that_cannot_be_clerks_is_not_put_into_an_address(
    clerk: ClerkApiServer, api: ClerkApi
) -> None:
    for odd in ("../instance", "user_1/../../instance", "user_1?x", "", "user_1#", "org 1"):
        assert api.user(odd) is None
        assert api.membership(odd, "user_1") is None
        assert api.membership("org_1", odd) is None
        assert not api.merge_public_metadata(odd, {"a": 1})
    assert clerk.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, b"<h1>Not found</h1>", {"Content-Type": "text/html"}),
        Answer(404, b"{}"),
        Answer(body=b'{"object": "user", "id": "user_2"}'),
        Answer(body=b"[]"),
        Answer(302, b"", {"Location": "/v1/instance"}),
    ],
    ids=["a proxy's 404", "nobody's 404", "another user", "a list", "a redirection"],
)
def test_only_clerks_own_word_says_that_a_user_is_gone(
    clerk: ClerkApiServer, api: ClerkApi, answer: Answer
) -> None:
    clerk.answer_next(answer)
    with pytest.raises(ClerkError):
        api.user("user_1")


def test_an_answer_about_others_does_not_say_that_a_membership_is_gone(
    clerk: ClerkApiServer, api: ClerkApi
) -> None:
    clerk.add(organization(), membership(user_id="user_2"))
    clerk.answer_next(Answer(body=b'{"data": [{"id": "orgmem_1"}], "total_count": 1}'))
    with pytest.raises(ClerkUnavailable, match="documented shape"):
        api.membership("org_1", "user_1")


def test_metadata_is_merged(clerk: ClerkApiServer, api: ClerkApi) -> None:
    clerk.add(user(public_metadata={"team": "red", "old": 1}))
    assert api.merge_public_metadata("user_1", {"roles": ["EDITOR"], "old": None})
    assert clerk.objects["user_1"]["public_metadata"] == {"team": "red", "roles": ["EDITOR"]}
    assert not api.merge_public_metadata("user_2", {"roles": []})


# --- what goes wrong ----------------------------------------------------------------------------


def test_retry_after_is_waited_for_in_seconds_and_as_a_date(
    clerk: ClerkApiServer, api: ClerkApi
) -> None:
    clerk.answer_next(too_many("1"), too_many_until(1))
    assert api.instance_id() == INSTANCE_ID
    first, second, third = (request.at for request in clerk.requests)
    assert 1 <= second - first < 2
    assert 1 <= third - second < 2


@pytest.mark.parametrize("text", ["3600", "121", "999999999"])
def test_a_pause_beyond_the_patience_is_an_error_at_once(clerk: ClerkApiServer, text: str) -> None:
    clerk.answer_next(too_many(text))
    with (
        closing(ClerkApi(SECRET_KEY, clerk.url, patience_seconds=1e12)) as api,
        pytest.raises(ClerkUnavailable, match=f"asks to wait {text} s"),
    ):
        api.instance_id()
    assert len(clerk.requests) == 1


@pytest.mark.parametrize("text", [None, "", "-1", "nan", "inf", "1e3", "soon", "9" * 400, "٣"])
def test_a_retry_after_that_says_nothing_is_a_short_pause(
    clerk: ClerkApiServer, api: ClerkApi, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)
    clerk.answer_next(too_many(text and text.encode().decode("latin-1")))
    assert api.instance_id() == INSTANCE_ID


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, b"{}"),
        Answer(503, b"<h1>Unavailable</h1>", {"Content-Type": "text/html"}),
        Answer(reset=True),
        Answer(body=b'{"object": "instance", "id": "ins'),
        Answer(body=b"\xff\xfe"),
        Answer(body=b"not packed", headers={"Content-Encoding": "gzip"}),
    ],
    ids=["500", "503", "a reset", "half an answer", "no text", "not gzip"],
)
def test_what_passes_is_asked_for_again(
    clerk: ClerkApiServer, api: ClerkApi, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)
    clerk.answer_next(answer, answer)
    with capture_logs() as logs:
        assert api.instance_id() == INSTANCE_ID
    assert [(line["event"], line["what"]) for line in logs] == [
        ("clerk_is_asked_again", "the instance")
    ] * 2


def test_a_slow_answer_is_given_up_and_asked_for_again(
    clerk: ClerkApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_SECONDS_MAX", 0.2)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)
    clerk.answer_next(Answer(seconds=0.5))
    assert ClerkApi(SECRET_KEY, clerk.url).instance_id() == INSTANCE_ID


def test_an_answer_that_trickles_is_given_up_and_asked_for_again(
    clerk: ClerkApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_SECONDS_MAX", 0.4)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)
    clerk.answer_next(Answer(body=b" " * 500, gap_seconds=0.05))
    with capture_logs() as logs:
        assert ClerkApi(SECRET_KEY, clerk.url).instance_id() == INSTANCE_ID
    assert [line["why"] for line in logs] == ["took more than 0.4 s"]


def test_what_does_not_pass_is_given_up_after_a_while(
    clerk: ClerkApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.1)
    api = ClerkApi(SECRET_KEY, clerk.url, patience_seconds=0.5)
    clerk.answer_next(*[Answer(503)] * 3)
    watch = Stopwatch()
    with pytest.raises(ClerkUnavailable, match="HTTP 503"):
        api.instance_id()
    assert watch.seconds < 1
    nobody = ClerkApi(SECRET_KEY, "http://127.0.0.1:1/v1", patience_seconds=0.2)
    with pytest.raises(ClerkUnavailable, match="ConnectError"):
        nobody.instance_id()


def test_a_pause_can_be_interrupted(clerk: ClerkApiServer) -> None:
    def stop(seconds: float) -> None:
        assert seconds == 100
        raise ShuttingDown("the process is ending")

    clerk.answer_next(too_many("100"))
    with pytest.raises(ShuttingDown):
        ClerkApi(SECRET_KEY, clerk.url, wait=stop).instance_id()


def test_a_wrong_key_is_reported_without_the_key(clerk: ClerkApiServer) -> None:
    wrong = "sk_test_thiskeyiswrong"
    with pytest.raises(ClerkRefused, match="does not accept the secret key") as caught:
        ClerkApi(wrong, clerk.url).users()
    assert "clerk_key_invalid" in caught.value.message
    error: BaseException | None = caught.value
    while error is not None:
        assert wrong not in f"{error!r} {error}"
        error = error.__cause__ or error.__context__
    assert len(clerk.requests) == 1


def test_an_instance_without_organizations_differs_from_a_wrong_key(
    clerk: ClerkApiServer, api: ClerkApi
) -> None:
    clerk.organizations_enabled = False
    for listed in (api.organizations, api.memberships, api.roles, api.permissions):
        with pytest.raises(OrganizationsOff):
            listed()
    with pytest.raises(OrganizationsOff):
        api.organization("org_1")
    assert api.users() == Page([], "")


@pytest.mark.parametrize(
    "body",
    [b"{}", b"null", b'"user"', b'{"data": []}', b'[{"id": "user_1"}, 7]'],
)
def test_a_list_of_another_shape_is_not_an_empty_list(
    clerk: ClerkApiServer, api: ClerkApi, body: bytes
) -> None:
    clerk.answer_next(Answer(body=body))
    with pytest.raises(ClerkUnavailable, match="documented shape"):
        api.users()


def test_a_refusal_names_clerks_code(clerk: ClerkApiServer, api: ClerkApi) -> None:
    body = b'{"errors": [{"message": "no", "code": "form_param_value_invalid"}]}'
    clerk.answer_next(Answer(422, body), Answer(400, b'{"errors": [{"code": "<b>"}]}'))
    with pytest.raises(ClerkRefused, match=r"users \(HTTP 422, form_param_value_invalid\)"):
        api.users()
    with pytest.raises(ClerkRefused, match=r"users \(HTTP 400\)"):
        api.users()
