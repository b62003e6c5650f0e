"""Objects of a Clerk account as Clerk writes them, and signed webhook requests that tell of them.

Signs with `hmac` alone, so that it shares nothing with the code under test.

    body = event("user.updated", user("user_1", banned=True), at=T0 + 5)
    status, text = deliver(server.http_port, body)                       # signed, fresh, new id
    status, text = deliver(port, body, headers=signed(body, secret=OTHER_SECRET))

Times are milliseconds, as Clerk's. Further arguments override or add fields.
"""

import base64
import hashlib
import hmac
import http.client
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

INSTANCE_ID = "ins_2abcdefghijklmnopqrstuvwxyz"
SECRET = "whsec_" + base64.b64encode(b"the secret of the tests, 32 byte").decode()
OTHER_SECRET = "whsec_" + base64.b64encode(b"another secret, also of 32 bytes").decode()
PATH = "/webhooks/clerk"
T0 = 1_790_000_000_000
"""Some moment; objects are as old as that unless they say otherwise."""

_numbers = itertools.count(int(time.time() * 1000))


# --- objects ------------------------------------------------------------------------------------


def user(
    id_: str = "user_1",
    *,
    email: str | None = None,
    updated_at: int = T0,
    created_at: int = T0,
    **fields: Any,
) -> dict[str, Any]:
    """A User. Its primary address is the last of two, if it has one."""
    addresses = [email_address("idn_other", "other@example.test")] if email else []
    addresses += [email_address("idn_primary", email)] if email else []
    return {
        "object": "user",
        "id": id_,
        "external_id": None,
        "primary_email_address_id": "idn_primary" if email else None,
        "username": None,
        "first_name": None,
        "last_name": None,
        "has_image": False,
        "public_metadata": {},
        "private_metadata": None,
        "unsafe_metadata": {},
        "email_addresses": addresses,
        "phone_numbers": [],
        "external_accounts": [],
        "banned": False,
        "locked": False,
        "lockout_expires_in_seconds": None,
        "created_at": created_at,
        "updated_at": updated_at,
        **fields,
    }


def email_address(id_: str, address: str) -> dict[str, Any]:
    return {
        "object": "email_address",
        "id": id_,
        "email_address": address,
        "verification": {"status": "verified", "strategy": "email_code"},
        "linked_to": [],
    }


def organization(
    id_: str = "org_1", *, updated_at: int = T0, created_at: int = T0, **fields: Any
) -> dict[str, Any]:
    return {
        "object": "organization",
        "id": id_,
        "name": f"Name of {id_}",
        "slug": id_.replace("_", "-"),
        "public_metadata": {},
        "private_metadata": {},
        "max_allowed_memberships": 5,
        "admin_delete_enabled": True,
        "created_by": "user_1",
        "created_at": created_at,
        "updated_at": updated_at,
        **fields,
    }


def membership(
    id_: str = "orgmem_1",
    *,
    organization_id: str = "org_1",
    user_id: str | None = "user_1",
    role: str = "org:member",
    updated_at: int = T0,
    created_at: int = T0,
    **fields: Any,
) -> dict[str, Any]:
    """An OrganizationMembership; with `user_id=None` without `public_user_data`, which Clerk does
    not promise."""
    data = {
        "object": "organization_membership",
        "id": id_,
        "role": role,
        "role_name": role.removeprefix("org:").title(),
        "permissions": [],
        "public_metadata": {},
        "private_metadata": {},
        "organization": organization(organization_id),
        "public_user_data": {"user_id": user_id, "identifier": f"{user_id}@example.test"},
        "created_at": created_at,
        "updated_at": updated_at,
        **fields,
    }
    return data if user_id is not None else _without(data, "public_user_data")


def session(
    id_: str = "sess_1",
    *,
    user_id: str = "user_1",
    status: str = "active",
    updated_at: int = T0,
    created_at: int = T0,
    **fields: Any,
) -> dict[str, Any]:
    return {
        "object": "session",
        "id": id_,
        "user_id": user_id,
        "user": user(user_id),
        "client_id": "client_1",
        "actor": None,
        "status": status,
        "last_active_organization_id": None,
        "expire_at": created_at + 86_400_000,
        "abandon_at": created_at + 86_400_000,
        "created_at": created_at,
        "updated_at": updated_at,
        **fields,
    }


def role(
    id_: str = "role_1",
    key: str = "org:editor",
    *,
    permissions: Sequence[Mapping[str, Any]] = (),
    updated_at: int = T0,
    created_at: int = T0,
    **fields: Any,
) -> dict[str, Any]:
    return {
        "object": "role",
        "id": id_,
        "key": key,
        "name": key.removeprefix("org:").title(),
        "description": None,
        "is_creator_eligible": False,
        "permissions": [dict(permission) for permission in permissions],
        "created_at": created_at,
        "updated_at": updated_at,
        **fields,
    }


def permission(
    id_: str = "perm_1",
    key: str = "org:posts:edit",
    *,
    updated_at: int = T0,
    created_at: int = T0,
    **fields: Any,
) -> dict[str, Any]:
    return {
        "object": "permission",
        "id": id_,
        "key": key,
        "name": key,
        "description": None,
        "type": "custom",
        "created_at": created_at,
        "updated_at": updated_at,
        **fields,
    }


def deleted(object_: str, id_: str, **fields: Any) -> dict[str, Any]:
    """A DeletedObject: what is left of a user, an organization, a role or a permission."""
    return {"object": object_, "id": id_, "deleted": True, **fields}


# --- messages -----------------------------------------------------------------------------------


def event(
    type_: str, data: Any, *, at: int = T0, instance_id: str = INSTANCE_ID, **fields: Any
) -> bytes:
    """The body of a message about an event of `at` (in milliseconds, or in seconds, as Clerk)."""
    envelope = {
        "object": "event",
        "type": type_,
        "data": data,
        "timestamp": at,
        "instance_id": instance_id,
        "event_attributes": {"http_request": {"client_ip": "192.0.2.1", "user_agent": "test"}},
        **fields,
    }
    return json.dumps(envelope).encode()


def signed(
    body: bytes,
    *,
    secret: str = SECRET,
    message_id: str | None = None,
    now: float | None = None,
    spelling: str = "svix",
) -> dict[str, str]:
    """Headers of a signed request; `now` is in seconds. Without a message id: a new one."""
    message_id = message_id or new_message_id()
    timestamp = str(int(time.time() if now is None else now))
    return {
        f"{spelling}-id": message_id,
        f"{spelling}-timestamp": timestamp,
        f"{spelling}-signature": signature(body, message_id, timestamp, secret),
    }


def signature(body: bytes, message_id: str, timestamp: str, secret: str = SECRET) -> str:
    """`v1,...` of exactly these."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    text = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, text, hashlib.sha256)).decode()


def new_message_id() -> str:
    return f"msg_{next(_numbers):024d}"


def deliver(
    port: int,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    *,
    path: str = PATH,
    seconds: float = 15,
) -> tuple[int, str]:
    """Posts a message, with Clerk's headers by default; status and text."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        sent = signed(body) if headers is None else dict(headers)
        connection.request("POST", path, body, {"Content-Type": "application/json", **sent})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def _without(data: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name != field}
