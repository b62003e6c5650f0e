"""Client of Clerk's Backend API: lists in pages, single objects, metadata.

Source: Clerk's specification of the Backend API, version 2025-11-10: `/users` is a bare array, the
other lists are `{"data": [...], "total_count": n}`; up to 500 a page; 429 with `Retry-After` past
1,000 requests in 10 s (100 in a development instance).

Plain HTTP instead of Clerk's SDK. The models of the SDK refuse a whole page for one unknown value,
e.g. a new kind of verification. Its retries ignore 429, sleep as long as `Retry-After` says, and
cannot be interrupted.
"""

import contextlib
import email.utils
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx
import structlog

from pdp.clerk.objects import Object
from pdp.errors import ClerkRefused, ClerkUnavailable
from pdp.outgoing import BoundExceeded, open_client
from pdp.settings import ClerkSettings

log = structlog.get_logger("pdp.clerk")

API_VERSION = "2025-11-10"
PAGE_ITEMS = 500
"""Clerk's maximum."""
OVERLAP_ITEMS = 100
"""How many objects the next page repeats. Deletions while pages are read move the rest up."""
REQUEST_SECONDS_MAX = 20.0
"""One exchange, from the name lookup to the last byte of a page."""
ANSWER_BYTES_MAX = 64 << 20
"""A page of users with all the metadata that Clerk stores for each is about half of it."""
RETRY_AFTER_SECONDS_MAX = 120.0
PATIENCE_SECONDS = 300.0
PAUSE_SECONDS = 0.5
PAUSE_SECONDS_MAX = 30.0
ORGANIZATIONS_OFF = "organization_not_enabled_in_instance"


class OrganizationsOff(ClerkRefused):
    """The instance does not use organizations."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list, oldest first."""

    objects: Sequence[Object]
    cursor: str
    """Where the next page begins; empty: this is the last page."""
    position: int | None = None
    """How many objects of the list come before the end of this page, if known."""
    total: int | None = None
    """Length of the whole list, if Clerk sends it."""


class ClerkApi:
    """Sends requests to the instance that `secret_key` belongs to. Thread-safe.

    If Clerk is busy or not reachable, a request is retried for `patience_seconds` in total. `wait`
    sleeps for a number of seconds; an exception that it raises ends the request.

    Every method raises ClerkUnavailable, and ClerkRefused if the key is wrong or Clerk refuses the
    request. No message contains the key, or anything else that was sent or received.
    """

    def __init__(
        self,
        secret_key: str,
        api_url: str,
        *,
        wait: Callable[[float], object] = time.sleep,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._wait = wait
        self._patience_seconds = patience_seconds
        self._url = api_url.rstrip("/")
        self._client = open_client(
            seconds_max=REQUEST_SECONDS_MAX,
            bytes_max=ANSWER_BYTES_MAX,
            headers={
                "Accept": "application/json",
                "Authorization": f"Bearer {secret_key}",
                "Clerk-API-Version": API_VERSION,
            },
        )

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    # --- the instance and its lists -------------------------------------------------------------

    def instance_id(self) -> str:
        """The id (`ins_...`) of the instance that the secret key belongs to."""
        instance = self._request("the instance", "/instance")
        if not isinstance(instance, dict) or not isinstance(instance.get("id"), str):
            raise _unexpected("the instance")
        found: str = instance["id"]
        return found

    def count_users(self) -> int:
        """The number of users of the instance."""
        counted = self._request("the number of users", "/users/count")
        if not isinstance(counted, dict) or not isinstance(counted.get("total_count"), int):
            raise _unexpected("the number of users")
        total: int = counted["total_count"]
        return total

    def users(self, cursor: str = "") -> Page:
        """A page of users. Users deleted meanwhile cause no gap in the list."""
        after, offset = (int(part) for part in (cursor or "0 0").split())
        # The API has no cursor. The time of creation serves as one, with an offset among the users
        # who were created in the same millisecond.
        query = _range(offset) | ({"created_at_after": after} if after else {})
        users = _objects("users", self._request("users", "/users", query))
        if len(users) < PAGE_ITEMS:
            return Page(users, "")
        created_at = users[-1].get("created_at")
        if isinstance(created_at, int) and created_at - 1 > after:
            return Page(users, f"{created_at - 1} 0")
        return Page(users, f"{after} {offset + PAGE_ITEMS - OVERLAP_ITEMS}")

    def organizations(self, cursor: str = "") -> Page:
        """A page of organizations. Raises OrganizationsOff."""
        return self._page("organizations", "/organizations", cursor)

    def memberships(self, cursor: str = "") -> Page:
        """A page of the memberships of all organizations. Raises OrganizationsOff."""
        return self._page("memberships", "/organization_memberships", cursor)

    def roles(self, cursor: str = "") -> Page:
        """A page of organization roles, with their permissions. Raises OrganizationsOff."""
        return self._page("organization roles", "/organization_roles", cursor)

    def permissions(self, cursor: str = "") -> Page:
        """A page of organization permissions. Raises OrganizationsOff."""
        return self._page("organization permissions", "/organization_permissions", cursor)

    # --- single objects: None if Clerk has no such object ---------------------------------------

    def user(self, user_id: str) -> Object | None:
        """A user."""
        return self._object_or_none("the user", "/users", user_id)

    def organization(self, organization_id: str) -> Object | None:
        """Raises OrganizationsOff too."""
        return self._object_or_none("the organization", "/organizations", organization_id)

    def role(self, role_id: str) -> Object | None:
        """Raises OrganizationsOff too."""
        return self._object_or_none("the organization role", "/organization_roles", role_id)

    def permission(self, permission_id: str) -> Object | None:
        """Raises OrganizationsOff too."""
        return self._object_or_none(
            "the organization permission", "/organization_permissions", permission_id
        )

    def membership(self, organization_id: str, user_id: str) -> Object | None:
        """Raises OrganizationsOff too."""
        if not (_is_clerk_id(organization_id) and _is_clerk_id(user_id)):
            return None
        path = f"/organizations/{organization_id}/memberships"
        answer = self._request("the membership", path, {"user_id": user_id, "limit": 1})
        if answer is None:
            return None
        found = _objects("the membership", _data_of("the membership", answer))
        for membership in found:
            user = membership.get("public_user_data")
            if not isinstance(user, dict) or user.get("user_id") != user_id:
                # Clerk answered another request: this proves nothing about ours.
                raise _unexpected("the membership")
        return found[0] if found else None

    def merge_public_metadata(self, user_id: str, values: Mapping[str, Any]) -> bool:
        """Writes keys of a user's `public_metadata`; others stay. A value of None removes a key.

        Returns:
            Whether the user exists.
        """
        what = "the user's metadata"
        if not _is_clerk_id(user_id):
            return False
        body = {"public_metadata": dict(values)}
        updated = self._request(what, f"/users/{user_id}/metadata", body=body)
        _require_id(what, updated, user_id)
        return updated is not None

    def _page(self, what: str, path: str, cursor: str) -> Page:
        """A page by its offset, which overlaps the previous page. If the last object of that is not
        in it, too many objects may have moved up: the next page then begins earlier."""
        offset_text, _, last = cursor.partition(" ")
        offset = int(offset_text or 0)
        answer = self._request(what, path, _range(offset))
        if answer is None:
            raise _unexpected(what)
        objects = _objects(what, _data_of(what, answer))
        total = answer.get("total_count")
        page = Page(objects, "", offset + len(objects), total if isinstance(total, int) else None)
        if last and all(object_.get("id") != last for object_ in objects):
            return replace(page, cursor=f"{max(0, offset - PAGE_ITEMS)}")
        if len(objects) < PAGE_ITEMS:
            return page
        following = offset + PAGE_ITEMS - OVERLAP_ITEMS
        return replace(page, cursor=f"{following} {objects[-1].get('id')}")

    def _object_or_none(self, what: str, path: str, wanted: str) -> Object | None:
        if not _is_clerk_id(wanted):
            return None
        found = self._request(what, f"{path}/{wanted}")
        _require_id(what, found, wanted)
        return found  # type: ignore[no-any-return]

    # --- requests ---------------------------------------------------------------------------------

    def _request(
        self,
        what: str,
        path: str,
        query: Mapping[str, str | int] | None = None,
        *,
        body: Object | None = None,
    ) -> Any:
        """The JSON of the response; None if there is no such object (404).

        Sends a GET, or a PATCH with `body`.
        """
        began = time.monotonic()
        pause = PAUSE_SECONDS
        while True:
            problem, asked_to_wait = "", None
            try:
                response = self._client.request(
                    "GET" if body is None else "PATCH", self._url + path, params=query, json=body
                )
            except httpx.RequestError as error:
                ours = isinstance(error, BoundExceeded)
                problem = str(error) if ours else type(error).__name__
            else:
                if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
                    problem, asked_to_wait = "HTTP 429", _retry_after(response.headers)
                elif response.is_server_error:
                    problem = f"HTTP {response.status_code}"
                else:
                    try:
                        return _content(what, response)
                    except ValueError:
                        problem = "an answer that is not JSON"
            pause_now = pause if asked_to_wait is None else asked_to_wait
            if (
                pause_now > RETRY_AFTER_SECONDS_MAX
                or time.monotonic() + pause_now - began > self._patience_seconds
            ):
                waits = f", and asks to wait {pause_now:.0f} s" if asked_to_wait is not None else ""
                raise ClerkUnavailable(f"Clerk does not return {what}: {problem}{waits}")
            log.info("clerk_is_asked_again", what=what, why=problem, seconds=round(pause_now, 1))
            self._wait(pause_now)
            pause = min(2 * pause, PAUSE_SECONDS_MAX)


@contextlib.contextmanager
def open_api(settings: ClerkSettings, wait: Callable[[float], object]) -> Iterator[ClerkApi]:
    """Opens the API of the instance that the settings name, and of no other.

    Args:
        settings: Must hold `instance_id` and `secret_key`.
        wait: As for `ClerkApi`.

    Raises:
        ValueError: The instance or the key is not set.
        ClerkRefused: The key belongs to another instance, or is wrong.
        ClerkUnavailable: Clerk does not answer.
    """
    key, wanted = settings.secret_key, settings.instance_id
    if key is None or wanted is None:
        raise ValueError("clerk.secret_key and clerk.instance_id must be set")
    api = ClerkApi(key.get_secret_value(), settings.api_url, wait=wait)
    with contextlib.closing(api):
        found = api.instance_id()
        if found != wanted:
            raise ClerkRefused(
                f"the secret key belongs to the instance {found}, but clerk.instance_id is {wanted}"
            )
        yield api


def _content(what: str, response: httpx.Response) -> Any:
    """Raises ClerkRefused, and ValueError if the body is not JSON."""
    if response.status_code == httpx.codes.OK:
        return response.json()
    code = _error_code(response)
    status = f"HTTP {response.status_code}{f', {code}' if code else ''}"
    if response.status_code == httpx.codes.NOT_FOUND and code:
        return None  # a 404 without a code of Clerk comes from something in between
    if code == ORGANIZATIONS_OFF:
        raise OrganizationsOff(f"Clerk does not return {what}: the instance has no organizations")
    if response.status_code == httpx.codes.UNAUTHORIZED:
        raise ClerkRefused(f"Clerk does not accept the secret key ({status})")
    raise ClerkRefused(f"Clerk does not return {what} ({status})")


def _error_code(response: httpx.Response) -> str:
    """Clerk's error code, e.g. `resource_not_found`; empty if there is none."""
    try:
        code = response.json()["errors"][0]["code"]
    except (ValueError, LookupError, TypeError):
        return ""
    return code if isinstance(code, str) and re.fullmatch(r"[a-z][a-z0-9_]{0,63}", code) else ""


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds to wait; None if the header is missing or invalid. Source: RFC 9110, 10.2.3."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        # Compared with the sender's own clock, because ours may differ.
        then, now = (
            email.utils.parsedate_to_datetime(moment) for moment in (text, headers.get("date", ""))
        )
        return max(0.0, (then - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _data_of(what: str, answer: Any) -> Any:
    if not isinstance(answer, dict):
        raise _unexpected(what)
    return answer.get("data")


def _objects(what: str, found: Any) -> Sequence[Object]:
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise _unexpected(what)
    return found


def _is_clerk_id(identifier: str) -> bool:
    """Whether this can be a Clerk id. Ids become part of URLs without escaping."""
    return re.fullmatch(r"[A-Za-z]+_[0-9A-Za-z_]{1,128}", identifier) is not None


def _range(offset: int) -> dict[str, str | int]:
    """The parameters of a page: oldest first."""
    return {"order_by": "created_at", "limit": PAGE_ITEMS, "offset": offset}


def _require_id(what: str, found: Any, wanted: str) -> None:
    """Raises ClerkUnavailable if the response is another object."""
    if found is not None and (not isinstance(found, dict) or found.get("id") != wanted):
        raise _unexpected(what)


def _unexpected(what: str) -> ClerkUnavailable:
    return ClerkUnavailable(f"Clerk's answer about {what} is not in the documented shape")
