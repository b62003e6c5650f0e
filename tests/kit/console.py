"""A real server with a console, a small invented company, and entities with hostile names."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
from pdpapi.v1.audit_service_pb2 import DecisionRecord as PbRecord
from pdpapi.v1.audit_service_pb2 import ListDecisionsRequest
from pdpapi.v1.core_pb2 import ResourceRef as PbRef

from examples.company import ANALYST, Company, company, history, write_history
from pdp.audit import KIND_RECORD, DecisionRecord, encode
from pdp.audit.transparency import new_key_file
from pdp.clock import wall_clock
from pdp.console import sign_in_link
from pdp.console.forms import proof_of
from pdp.database.engine import open_engine
from pdp.facts.store.console_secrets import ConsoleSecrets
from pdp.model import (
    Actor,
    Effect,
    Grant,
    InOrganization,
    Membership,
    Organization,
    Permission,
    Reason,
    Resource,
    ResourceRef,
    Role,
    Rule,
    ToUser,
    User,
    UserStatus,
)
from tests.kit.ports import free_port
from tests.kit.server import ServerProcess, Stubs, stubs_on, token_of
from tests.kit.waiting import eventually

MARKUP = "\"><img src=x onerror=alert(1)><script>alert('x')</script>{{ 7 * 7 }}"
CONTROLS = "\x1b]0;title\x07\x1b[31mred\u202e<b>\x00\r\n"
FORMULA = '=HYPERLINK("http://evil.example","x")'
HOSTILE_USER = f"user_{MARKUP}"
HOSTILE_RESOURCE = ResourceRef("invoice", f"{MARKUP}&type=course#?%2f..")
HOSTILE_DECISION = "01900000-0000-7000-8000-00000000beef"
OUTSIDER = "user_harbor_0"
"""An owner, of everything in an organization."""
AUDITOR = "user_auditor"
"""Sees the console of org_meadow."""
VIEWER = "user_viewer"
"""Sees the console, and may not review."""
HOURS = 2.0
PAST = Path(__file__).parents[2] / "examples" / "past.py"


def hostile(made: Company) -> Company:
    """The company, with entities whose texts attack the pages that show them."""
    document = made.document
    return replace(
        made,
        document=replace(
            document,
            permissions=(*document.permissions, Permission("invoice:print", MARKUP)),
            roles=(
                *document.roles,
                Role("HOSTILE", MARKUP, ("EMPLOYEE",)),
                Role("VIEWER"),
            ),
            rules=(
                *document.rules,
                Rule("viewer", "VIEWER", Effect.ALLOW, "console:view"),
                Rule(
                    "hostile",
                    "HOSTILE",
                    Effect.ALLOW,
                    "invoice:print",
                    'resource.attributes.x == "</code><script>alert(2)</script>"',
                    MARKUP,
                ),
            ),
            users=(
                *document.users,
                User(HOSTILE_USER, FORMULA, MARKUP, attributes={MARKUP: MARKUP}),
                User(AUDITOR),
                User(VIEWER),
                User("user_left", status=UserStatus.DISABLED),
            ),
            organizations=(*document.organizations, Organization(f"org_{MARKUP}", MARKUP, MARKUP)),
            memberships=(
                *document.memberships,
                Membership(f"org_{MARKUP}", HOSTILE_USER, f"org:{MARKUP}"),
                Membership("org_meadow", AUDITOR, "org:member"),
            ),
            grants=(
                *document.grants,
                Grant(f"grant {MARKUP}", "HOSTILE", ToUser(HOSTILE_USER)),
                Grant("auditor", "TENANT_AUDITOR", ToUser(AUDITOR), InOrganization("org_meadow")),
                Grant("viewer", "VIEWER", ToUser(VIEWER)),
                Grant("left", "EMPLOYEE", ToUser("user_left"), InOrganization("org_summit")),
            ),
            resources=(
                *document.resources,
                Resource(
                    "invoice",
                    HOSTILE_RESOURCE.id,
                    f"org_{MARKUP}",
                    attributes={MARKUP: MARKUP, "x": FORMULA},
                ),
            ),
        ),
    )


def hostile_record(now: float) -> bytes:
    """A record whose every text is hostile, controls included."""
    text = MARKUP + CONTROLS
    record = DecisionRecord(
        HOSTILE_DECISION,
        now - 60,
        Effect.DENY,
        Reason.ACTOR_UNKNOWN,
        text,
        text,
        1,
        text,
        Actor(HOSTILE_USER, text, f"org_{text}", text),
        text,
        ResourceRef(text, text),
        text,
        text,
        text,
        request=text,
    )
    return KIND_RECORD + encode(record)


@dataclass
class Console:
    """A server with a console."""

    server: ServerProcess
    stubs: Stubs
    company: Company
    origin: str

    def link(self, user: str = ANALYST) -> str:
        """A one-time link, as `pdp console login` makes it."""
        engine = open_engine(self.server.environment["PDP_DATABASE_URL"])
        try:
            secrets = ConsoleSecrets(engine, clock=wall_clock)
            return sign_in_link(secrets, self.origin, user)
        finally:
            engine.dispose()

    def client(self, **options: Any) -> "Visitor":
        """A browser without a session."""
        return Visitor(self.origin, **options)

    def signed_in(self, user: str = ANALYST, **token: Any) -> "Visitor":
        """A browser of a user with a session."""
        visitor = self.client()
        answer = visitor.sign_in(token_of(user, **token))
        assert answer.status_code == 303, answer.text
        return visitor

    def names_of_others(self, organization: str) -> set[str]:
        """Texts that name what does not belong to an organization of the company."""
        document = self.company.document
        names = {other.id for other in document.organizations} - {organization}
        names |= {
            other.name
            for other in document.organizations
            if other.id != organization and other.name
        }
        own = {AUDITOR, *self.company.members[organization]}
        names |= {user.id for user in document.users if user.id not in own}
        names |= {
            invoice
            for owner, some in self.company.invoices.items()
            if owner != organization
            for invoice in some
        }
        own_word = organization.removeprefix("org_")
        names |= {
            grant.id for grant in document.grants if "-" in grant.id and own_word not in grant.id
        }
        return {name for name in names if name.isascii() and len(name) > 3 and "<" not in name}

    def port(self) -> int:
        return int(self.origin.rpartition(":")[2])


class Visitor:
    """What a browser does: it keeps cookies and says where forms come from."""

    def __init__(self, origin: str, **options: Any) -> None:
        self.origin = origin
        # Without TLS, or with that of the options: authorities take 30 ms to load.
        given = {"verify": False, "trust_env": False, "timeout": 20, **options}
        self.http = httpx.Client(base_url=origin, **given)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.http.get(path, **options)

    def proof(self, path: str = "/sign-in") -> str:
        """The proof in the forms of a page; also of a page that has none."""
        found = re.search(r'name="proof" value="([0-9a-f]{64})"', self.get(path).text)
        return found[1] if found else proof_of(self.http.cookies["pdp-console"])

    def post(self, path: str, fields: dict[str, str], **headers: str) -> httpx.Response:
        return self.http.post(path, data=fields, headers={"origin": self.origin, **headers})

    def sign_in(self, token: str, **fields: str) -> httpx.Response:
        """Signs in with a session token in the cookie of the application."""
        self.http.cookies.set("__session", token, domain="127.0.0.1")
        return self.post("/sign-in", {"proof": self.proof(), **fields})

    def follow(self, link: str) -> httpx.Response:
        """Signs in with a one-time link."""
        path = link.removeprefix(self.origin)
        return self.post(
            "/sign-in", {"proof": self.proof(path), "link": path.partition("link=")[2]}
        )


@contextmanager
def running_console(
    directory: Path,
    decisions: int = 600,
    made: Company | None = None,
    hours: float = HOURS,
    *,
    is_filled: bool = False,
    policy_age: float = 0,
    **settings: Any,
) -> Iterator[Console]:
    """A server that is ready, with a company and its history. `is_filled`: the database has both
    already. `policy_age`: how many seconds ago the policy was applied."""
    made = made or hostile(company(3, 5, 6))
    listen = f"127.0.0.1:{free_port()}"
    key = directory / "key.pem"
    new_key_file("test.example", key)
    server = ServerProcess(
        directory,
        {
            "CONSOLE": {"listen": listen, "report_key_file": str(key)},
            "AUDIT_ALLOWS": True,
            "AUDIT_TREE": {
                "name": "test.example",
                "signers": [{"key_file": str(key)}],
                "checkpoint_seconds": 1,
            },
            **settings,
        },
    )
    now = time.time()
    if not is_filled:
        (directory / "company.yaml").write_text(made.text, encoding="utf-8")
        if policy_age:
            command = [sys.executable, PAST, str(policy_age), "apply", "company.yaml"]
            subprocess.run(
                command, cwd=directory, env=server.environment, check=True, capture_output=True
            )
        else:
            done = server.pdp("apply", "company.yaml")
            assert done.returncode == 0, done.stderr
    if decisions and not is_filled:
        records = [*history(made, now, hours, decisions), hostile_record(now)]
        write_history(directory / "audit", iter(records), now)
    try:
        server.start()
        with server.channel() as channel:
            console = Console(server, stubs_on(channel), made, f"http://{listen}")
            if decisions and not is_filled:
                eventually(lambda: is_shipped(console), seconds=30, what="the history is in SQL")
            yield console
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()


def is_shipped(console: Console) -> bool:
    from pdpapi.v1.audit_service_pb2 import GetDecisionRequest

    try:
        console.stubs.audit.GetDecision(GetDecisionRequest(decision_id=HOSTILE_DECISION), timeout=5)
    except Exception:  # noqa: BLE001  # not there yet
        return False
    return True


class Outline(HTMLParser):
    """Which elements and attributes a page has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


def text_of(page: str) -> str:
    """The visible text, with single spaces."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())


def recorded(console: Console, page: str = "sign-in", shown: str = "", **query: Any) -> PbRecord:
    """The newest decision about a page that matches, once it is in SQL. `shown`: a text that has
    its id, for other tests leave records of the same users."""
    found: list[PbRecord] = []

    def look() -> bool:
        resource = PbRef(type="console", id=page)
        request = ListDecisionsRequest(page_size=100, resource=resource, **query)
        listed = console.stubs.audit.ListDecisions(request, timeout=5).decisions
        found[:] = [record for record in listed if not shown or record.decision_id in shown]
        return bool(found)

    eventually(look, what=f"{query} is recorded")
    return found[0]
