"""Somebody whose rights come and go: the facts, how each is written, and what is asked about them.

question   permission      needs, beside account, membership and session
read       doc:read        grant: a role granted to the user
open       doc:open        parent, above: the document below the folder, the folder below a
                           drive on which the user holds a role
act        doc:act-<id>    rule: a rule of a role that the user holds
share      doc:share       shared: a role granted to a role of the organization
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pdpapi.v1 import administration_service_pb2 as pb
from pdpapi.v1.administration_service_pb2_grpc import PolicyAdministrationServiceStub
from pdpapi.v1.core_pb2 import Resource, ResourceRef

from tests.kit.tokens import SigningKey, session_token

TOKEN_SECONDS = 3_000
WRITE_SECONDS_MAX = 2.0
QUESTIONS: Mapping[str, Sequence[str]] = {
    "read": ("grant",),
    "open": ("parent", "above"),
    "act": ("rule",),
    "share": ("shared",),
}
EVERYWHERE = ("account", "membership", "session")
WEIGHTS = {
    "grant": 6,
    "membership": 3,
    "account": 3,
    "session": 2,
    "parent": 2,
    "above": 2,
    "shared": 2,
    "rule": 1,
}
"""How often each is taken away, in proportion."""

_Write = Callable[[PolicyAdministrationServiceStub, Any], Any]


class Subject:
    """One user with an organization, a document and all that allows them to use it.

    One thread writes, any may ask. `session` is replaced whole.
    """

    def __init__(self, name: str, key: SigningKey) -> None:
        self.name = name
        self._key = key
        self.user = f"user_{name}"
        self.organization = f"org_{name}"
        self.session = (0, self._token(0))
        """Its number and a token of it."""
        self.revision = 0
        """The latest that is known to hold a write of this one."""
        self.focus = "grant"
        """The fact that was taken away last, or will be next."""
        self.taken = False
        """Whether it is away."""

    def facts(self) -> Sequence[str]:
        """The facts that hold at first."""
        return [self.fact(name) for name in WEIGHTS]

    def fact(self, name: str, session: int | None = None) -> str:
        if name == "session":
            return f"{self.name} session {self.session[0] if session is None else session}"
        return f"{self.name} {name}"

    def needs(self, question: str, session: int) -> frozenset[str]:
        return frozenset(self.fact(name, session) for name in (*EVERYWHERE, *QUESTIONS[question]))

    def permission(self, question: str) -> str:
        return f"doc:act-{self.name}" if question == "act" else f"doc:{question}"

    def begin_session(self) -> str:
        """After one was revoked, which is for good. Returns the name of the new fact."""
        number = self.session[0] + 1
        self.session = (number, self._token(number))
        return self.fact("session")

    def write(self, stub: PolicyAdministrationServiceStub, name: str, *, holds: bool) -> int:
        """Makes a fact hold or end, and returns the revision. Raises grpc.RpcError."""
        request = getattr(self, f"_{name}")(holds)
        kind = type(request).__name__.removesuffix("Request")
        response = getattr(stub, kind)(request, timeout=WRITE_SECONDS_MAX)
        self.revision = response.revision
        return self.revision

    def _token(self, number: int) -> str:
        return session_token(
            now=time.time(),
            key=self._key,
            user_id=self.user,
            session_id=f"sess_{self.name}_{number}",
            organization_id=self.organization,
            claims={"exp": int(time.time()) + TOKEN_SECONDS},
        )

    # --- the requests -----------------------------------------------------------------------------

    def _grant(self, holds: bool) -> Any:
        if not holds:
            return pb.DeleteGrantRequest(id=f"grant-{self.name}")
        return pb.CreateGrantRequest(
            grant=pb.Grant(
                id=f"grant-{self.name}",
                role="READER",
                user_id=self.user,
                organization_id=self.organization,
            )
        )

    def _shared(self, holds: bool) -> Any:
        if not holds:
            return pb.DeleteGrantRequest(id=f"shared-{self.name}")
        return pb.CreateGrantRequest(
            grant=pb.Grant(
                id=f"shared-{self.name}",
                role="SHARER",
                organization_role="org:member",
                organization_id=self.organization,
            )
        )

    def _membership(self, holds: bool) -> Any:
        key = {"organization_id": self.organization, "user_id": self.user}
        if not holds:
            return pb.DeleteMembershipRequest(**key)
        return pb.CreateMembershipRequest(membership=pb.Membership(**key, role="org:member"))

    def _account(self, holds: bool) -> Any:
        status = pb.USER_STATUS_ACTIVE if holds else pb.USER_STATUS_DISABLED
        return pb.UpdateUserRequest(user=pb.User(id=self.user, status=status))

    def _session(self, holds: bool) -> Any:
        assert not holds
        session = f"sess_{self.name}_{self.session[0]}"
        return pb.RevokeSessionRequest(session_id=session, user_id=self.user)

    def _parent(self, holds: bool) -> Any:
        return self._moved("doc", "folder" if holds else "closed")

    def _above(self, holds: bool) -> Any:
        return self._moved("folder", "open" if holds else "closed")

    def _moved(self, kind: str, parent: str) -> Any:
        above = ResourceRef(type="folder" if parent == "folder" else "drive", id=self._id(parent))
        resource = Resource(
            type=kind, id=self._id(kind), organization_id=self.organization, parent=above
        )
        return pb.UpdateResourceRequest(resource=resource)

    def _rule(self, holds: bool) -> Any:
        if not holds:
            return pb.DeleteRuleRequest(id=f"rule-{self.name}")
        return pb.CreateRuleRequest(
            rule=pb.Rule(
                id=f"rule-{self.name}",
                role="ACTOR",
                effect=pb.EFFECT_ALLOW,
                permission=self.permission("act"),
            )
        )

    def _id(self, kind: str) -> str:
        return f"{kind}-{self.name}" if kind in ("open", "closed") else self.name

    @property
    def document(self) -> str:
        return self._id("doc")


def policy_of(names: Sequence[str]) -> Mapping[str, Any]:
    """The policy document in which every fact of these subjects holds."""
    resources = []
    for name in names:
        organization = f"org_{name}"
        resources += [
            {"type": "drive", "id": f"open-{name}", "organization": organization},
            {"type": "drive", "id": f"closed-{name}", "organization": organization},
            {
                "type": "folder",
                "id": name,
                "organization": organization,
                "parent": {"type": "drive", "id": f"open-{name}"},
            },
            {
                "type": "doc",
                "id": name,
                "organization": organization,
                "parent": {"type": "folder", "id": name},
            },
        ]
    acts = [{"permission": f"doc:act-{name}", "id": f"rule-{name}"} for name in names]
    return {
        "version": 1,
        "permissions": [
            "doc:read",
            "doc:open",
            "doc:share",
            *(f"doc:act-{name}" for name in names),
        ],
        "roles": {
            "READER": {"allow": ["doc:read"]},
            "OPENER": {"allow": ["doc:open"]},
            "SHARER": {"allow": ["doc:share"]},
            "ACTOR": {"allow": acts},
        },
        "grants": [grant for name in names for grant in _grants(name)],
        "users": [{"id": f"user_{name}"} for name in names],
        "organizations": [{"id": f"org_{name}"} for name in names],
        "memberships": [
            {"organization": f"org_{name}", "user": f"user_{name}", "role": "org:member"}
            for name in names
        ],
        "resources": resources,
    }


def _grants(name: str) -> Sequence[Mapping[str, Any]]:
    user, organization = f"user_{name}", f"org_{name}"
    drive = {"type": "drive", "id": f"open-{name}"}
    return (
        {"id": f"grant-{name}", "role": "READER", "user": user, "organization": organization},
        {"id": f"open-{name}", "role": "OPENER", "user": user, "resource": drive},
        {"id": f"act-{name}", "role": "ACTOR", "user": user, "organization": organization},
        {
            "id": f"shared-{name}",
            "role": "SHARER",
            "organization_role": "org:member",
            "organization": organization,
        },
    )


def key_from_pem(kid: str, pem: str) -> SigningKey:
    """A signing key that another process has made."""
    private = serialization.load_pem_private_key(pem.encode(), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    return SigningKey(kid, private)


def key_as_pem(key: SigningKey) -> str:
    return key.private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
