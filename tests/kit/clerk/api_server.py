"""A real HTTP server on loopback that speaks Clerk's Backend API, and misbehaves on request.

    with ClerkApiServer() as clerk:
        clerk.add(user("user_1"), organization("org_1"), membership("orgmem_1"))
        clerk.answer_next(too_many(retry_after="1"), path="/users")
        api = ClerkApi(SECRET_KEY, clerk.url)
        assert clerk.asked("/users") == 2

Source: Clerk's specification of the Backend API, version 2025-11-10: `/users` is a bare array, the
other lists are `{"data", "total_count"}`; `limit` 1 to 500, by default 10; by default newest first;
errors are `{"errors": [{"message", "long_message", "code"}]}`.
"""

import email.utils
import json
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.kit.clerk.events import INSTANCE_ID

SECRET_KEY = "sk_test_thekeyofthetests"
PREFIX = "/v1"
_LIMIT_MAX = 500
_LISTS = {
    "users": "user",
    "organizations": "organization",
    "organization_memberships": "organization_membership",
    "organization_roles": "role",
    "organization_permissions": "permission",
}
Object = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """A request, and when it came (`time.monotonic`)."""

    at: float
    method: str
    path: str
    """Behind `/v1`."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""


@dataclass(frozen=True)
class Answer:
    """An answer that is given instead of the right one."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0
    """Until it comes."""
    gap_seconds: float = 0
    """Between the bytes of its body."""
    reset: bool = False
    """The connection is reset instead."""


def too_many(retry_after: str | None = None, **headers: str) -> Answer:
    """429; `retry_after` in seconds or as a date."""
    if retry_after is not None:
        headers["Retry-After"] = retry_after
    return Answer(429, _errors("too_many_requests"), headers)


def too_many_until(seconds: float) -> Answer:
    """429 with a date that lies some seconds ahead of the server's own clock, which is wrong."""
    wrong = time.time() - 86_400
    return Answer(
        429,
        _errors("too_many_requests"),
        {
            "Date": email.utils.formatdate(wrong, usegmt=True),
            "Retry-After": email.utils.formatdate(wrong + seconds, usegmt=True),
        },
    )


class ClerkApiServer:
    """One instance. What it holds may be changed while it runs."""

    def __init__(self, instance_id: str = INSTANCE_ID, secret_key: str = SECRET_KEY) -> None:
        self._identity = (instance_id, secret_key)
        self.reset()
        self._lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}{PREFIX}"

    def reset(self) -> None:
        """Restores the initial state: an empty account, and no requests."""
        self.instance_id, self.secret_key = self._identity
        self.organizations_enabled = True
        self.objects: dict[str, Object] = {}
        """By id, of all kinds."""
        self.requests: list[Request] = []
        self.on_request: Callable[[Request], None] = lambda _: None
        """Called before each answer, in the thread that gives it."""
        self.instead: list[tuple[str, Answer]] = []
        """Answers set by `answer_next`, with their paths."""

    # --- the account ------------------------------------------------------------------------------

    def add(self, *objects: Object) -> None:
        """Creates or replaces objects (see `events`)."""
        with self._lock:
            self.objects.update((object_["id"], object_) for object_ in objects)

    def remove(self, *ids: str) -> None:
        """Deletes objects; memberships go with their user or organization."""
        with self._lock:
            for id_ in ids:
                self.objects.pop(id_, None)
            for membership in self._all("organization_membership"):
                if membership["organization"]["id"] in ids or _member(membership) in ids:
                    del self.objects[membership["id"]]

    def answer_next(self, *answers: Answer, path: str = "") -> None:
        """Gives these answers, in order, to the next requests of a path (behind `/v1`; empty: of
        any)."""
        with self._lock:
            self.instead += [(path, answer) for answer in answers]

    def asked(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(request.path == path for request in self.requests)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)

    # --- answers ----------------------------------------------------------------------------------

    def answer(self, request: Request, body: bytes) -> Answer:
        self.on_request(request)
        with self._lock:
            self.requests.append(request)
            for number, (path, instead) in enumerate(self.instead):
                if path in ("", request.path):
                    del self.instead[number]
                    return instead
            if request.headers.get("authorization") != f"Bearer {self.secret_key}":
                return Answer(401, _errors("clerk_key_invalid"))
            if (
                re.fullmatch(r"\d{4}-\d\d-\d\d", request.headers.get("clerk-api-version", ""))
                is None
            ):
                return Answer(400, _errors("api_version_invalid"))
            return self._right_answer(request, body)

    def _right_answer(self, request: Request, body: bytes) -> Answer:
        parts = request.path.strip("/").split("/")
        about_organizations = any(part.startswith("organization") for part in parts)
        if about_organizations and not self.organizations_enabled:
            return Answer(403, _errors("organization_not_enabled_in_instance"))
        if request.method == "PATCH":
            return self._patch(parts, body) or _not_found()
        return self._get(parts, request.query) or _not_found()

    def _get(self, parts: list[str], query: Mapping[str, str]) -> Answer | None:
        match parts:
            case ["instance"]:
                environment = {"environment_type": "development", "allowed_origins": None}
                return _json({"object": "instance", "id": self.instance_id, **environment})
            case ["users", "count"]:
                total = len(self._all("user"))
                return _json({"object": "total_count", "total_count": total})
            case ["organizations", organization_id, "memberships"]:
                if organization_id in self.objects:
                    return self._list("organization_membership", query, organization_id)
            case [name] if name in _LISTS:
                return self._list(_LISTS[name], query)
            case [name, id_]:
                found = self.objects.get(id_)
                if found is not None and found["object"] == _LISTS.get(name):
                    return _json(found)
        return None

    def _patch(self, parts: list[str], body: bytes) -> Answer | None:
        match parts:
            case ["users", user_id, "metadata"] if user_id in self.objects:
                changed = self._merge(self.objects[user_id], json.loads(body))
                self.objects[user_id] = changed
                return _json(changed)
        return None

    def _list(self, kind: str, query: Mapping[str, str], organization_id: str = "") -> Answer:
        limit, offset = int(query.get("limit", "10")), int(query.get("offset", "0"))
        order = query.get("order_by", "-created_at")
        if not 1 <= limit <= _LIMIT_MAX or offset < 0 or order.strip("+-") != "created_at":
            return Answer(422, _errors("form_param_value_invalid"))
        found = [
            object_
            for object_ in self._all(kind)
            if object_["created_at"] > int(query.get("created_at_after", "-1"))
            and (not organization_id or object_["organization"]["id"] == organization_id)
            and ("user_id" not in query or _member(object_) == query["user_id"])
        ]
        found.sort(key=lambda object_: object_["created_at"], reverse=order.startswith("-"))
        page = found[offset : offset + limit]
        if kind == "user":
            return _json(page)
        return _json({"data": page, "total_count": len(found)})

    def _all(self, kind: str) -> list[Object]:
        return [object_ for object_ in self.objects.values() if object_["object"] == kind]

    def _merge(self, user: Object, body: Object) -> Object:
        merged = dict(user, updated_at=int(time.time() * 1000))
        for name, values in body.items():
            both = {**(user[name] or {}), **(values or {})}
            merged[name] = {key: value for key, value in both.items() if value is not None}
        return merged


def _member(membership: Object) -> str | None:
    member: Object = membership.get("public_user_data") or {}
    return member.get("user_id")


def _json(value: Any) -> Answer:
    return Answer(body=json.dumps(value).encode())


def _errors(code: str) -> bytes:
    error = {"message": code, "long_message": code, "code": code}
    return json.dumps({"errors": [error], "clerk_trace_id": "0123"}).encode()


def _not_found() -> Answer:
    return Answer(404, _errors("resource_not_found"))


def _handler_of(server: ClerkApiServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            parts = urlsplit(self.path)
            request = Request(
                time.monotonic(),
                self.command,
                parts.path.removeprefix(PREFIX),
                {name: values[0] for name, values in parse_qs(parts.query).items()},
                {name.lower(): value for name, value in self.headers.items()},
            )
            answer = server.answer(request, body)
            time.sleep(answer.seconds)
            if answer.reset:
                self._reset()
                return
            try:
                self._send(answer)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client had enough

        do_GET = do_PATCH = handle_any  # noqa: N815

        def _send(self, answer: Answer) -> None:
            headers = {"Content-Type": "application/json", **answer.headers}
            self.send_response_only(answer.status)
            headers.setdefault("Date", self.date_time_string())
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if not answer.gap_seconds:
                self.wfile.write(answer.body)
                return
            for byte in answer.body:
                self.wfile.write(bytes([byte]))
                time.sleep(answer.gap_seconds)

        def _reset(self) -> None:
            at_once = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            os.close(self.connection.detach())
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    return Handler
