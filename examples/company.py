"""The company of company.yaml with its users, organizations, invoices and a history of decisions.

All of it is invented and follows from a seed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from uuid import UUID

from pdp.audit import KIND_RECORD, build_records, encode
from pdp.audit.writer import LogWriter
from pdp.document import Asked, PolicyDocument, World, parse_document, render_document
from pdp.model import (
    Actor,
    Decision,
    Effect,
    Grant,
    InOrganization,
    Membership,
    Organization,
    Question,
    Reason,
    RefusedToken,
    Resource,
    Role,
    Rule,
    ToOrganizationRole,
    ToUser,
    User,
    UserStatus,
)

POLICY = Path(__file__).parent / "company.yaml"
ANALYST = "user_security_1"
NAMES = (
    *(
        "Harbor Freight Lines",
        "Meadow Dairies",
        "Summit Optics",
        "Granite Works",
        "Lakeside Clinics",
    ),
    *("Orchard Foods", "Copper Cables", "Willow Furniture"),
)
"""Of organizations. If there are more, numbers follow."""
BATCH = 200
TEAM_PERMISSIONS = ("invoice:edit", "invoice:delete", "report:view", "report:export", "case:answer")


@dataclass(frozen=True)
class Company:
    """The document, and what questions are about."""

    document: PolicyDocument
    members: dict[str, list[str]]
    """Users by organization."""
    invoices: dict[str, list[str]]

    @property
    def text(self) -> str:
        """The document as YAML."""
        return render_document(self.document)


def company(
    organizations: int = 6, members: int = 8, invoices: int = 12, seed: int = 1, *, teams: int = 0
) -> Company:
    """A company with so many customers, and so many members, invoices and teams of each. A team is
    a role of its own, which two members hold."""
    random = Random(seed)
    users = [User(ANALYST, "security@vendor.example", "Security analyst 1")]
    grants = [Grant("security", "SECURITY_ANALYST", ToUser(ANALYST))]
    for number in range(1, 4):
        users.append(User(f"user_support_{number}", name=f"Support agent {number}"))
        grants.append(Grant(f"support-{number}", "SUPPORT", ToUser(users[-1].id)))
    customers, memberships, resources = [], [], []
    roles, rules = [], []
    by_organization: dict[str, list[str]] = {}
    by_invoice: dict[str, list[str]] = {}
    for index in range(organizations):
        name = NAMES[index] if index < len(NAMES) else f"Customer {index}"
        slug = name.split()[0].lower() if index < len(NAMES) else f"customer{index}"
        id_ = f"org_{slug}"
        customers.append(Organization(id_, slug, name))
        grants.append(
            Grant(
                f"{slug}-staff", "EMPLOYEE", ToOrganizationRole("org:member"), InOrganization(id_)
            )
        )
        by_organization[id_] = []
        for member in range(members):
            role = dict(enumerate(("OWNER", "APPROVER", "ACCOUNTANT", "ACCOUNTANT"))).get(member)
            title = {"OWNER": "Owner", "APPROVER": "Approver", "ACCOUNTANT": "Accountant"}.get(
                role or "", "Member"
            )
            user = User(
                f"user_{slug}_{member}",
                f"{title.lower()}{member}@{slug}.example",
                f"{title} {member} of {name}",
                UserStatus.DISABLED if member == members - 1 and index == 0 else UserStatus.ACTIVE,
                {"limit": float(random.choice((500, 1000, 5000)))},
            )
            users.append(user)
            by_organization[id_].append(user.id)
            memberships.append(
                Membership(id_, user.id, "org:admin" if role == "OWNER" else "org:member")
            )
            if role is not None:
                grants.append(Grant(f"{slug}-{member}", role, ToUser(user.id), InOrganization(id_)))
        for team in range(teams):
            role_name = f"{slug.upper()}_TEAM_{team}"
            roles.append(Role(role_name, f"Team {team} of {name}", ("EMPLOYEE",)))
            for permission in random.sample(TEAM_PERMISSIONS, 2):
                rule_id = f"{role_name}.{permission}"
                rules.append(Rule(rule_id, role_name, Effect.ALLOW, permission))
            for holder in random.sample(by_organization[id_], 2):
                grant_id = f"{slug}-team-{team}-{holder}"
                grants.append(Grant(grant_id, role_name, ToUser(holder), InOrganization(id_)))
        by_invoice[id_] = [f"{slug}-{2026000 + number}" for number in range(invoices)]
        resources += [
            Resource(
                "invoice",
                invoice,
                id_,
                attributes={
                    "owner": random.choice(by_organization[id_]),
                    "state": random.choice(("draft", "draft", "sent")),
                    "amount": float(random.randrange(50, 4000)),
                },
            )
            for invoice in by_invoice[id_]
        ]
    policy = parse_document(POLICY.read_text(encoding="utf-8"))
    document = replace(
        policy,
        roles=(*(policy.roles or ()), *roles),
        rules=(*(policy.rules or ()), *rules),
        users=tuple(users),
        organizations=tuple(customers),
        memberships=tuple(memberships),
        resources=tuple(resources),
        grants=tuple(grants),
    )
    return Company(document, by_organization, by_invoice)


def large_company() -> Company:
    """5,000 users, 40 organizations, 200 roles and 10,000 invoices, and a few of the vendor."""
    return company(organizations=40, members=125, invoices=250, teams=5)


def later(made: Company) -> str:
    """The document as YAML, with a small change of the policy."""
    return made.text.replace("Approve an invoice for", "Approve an invoice or a credit for")


def history(
    made: Company, end: float, hours: float, decisions: int, seed: int = 1
) -> Iterator[bytes]:
    """Records of decisions in the hours before `end` (seconds since 1970), oldest first. Late in
    that time, one user of one customer asks for what belongs to others again and again."""
    random = Random(seed)
    world = World(made.document)
    intruder = made.members["org_harbor"][-2]
    start = end - hours * 3600
    times = sorted(
        end - hours * 3600 * random.random() ** 1.2
        if random.random() > 0.08
        else start + (end - start) * random.uniform(0.90, 0.915)
        for _ in range(decisions)
    )
    for at in times:
        if 0.90 <= (at - start) / (end - start) <= 0.915 and random.random() < 0.8:
            other = random.choice([id_ for id_ in made.invoices if id_ != "org_harbor"])
            asked = _asked(
                intruder, "org_harbor", "invoice:view", random.choice(made.invoices[other])
            )
        else:
            asked = _any(made, random)
        caller = "billing-api" if asked.question.permission.startswith("invoice") else "backoffice"
        token = asked.token(at)
        if random.random() < 0.02:
            refused = RefusedToken(Reason.TOKEN_EXPIRED, random.randbytes(8).hex(), token.actor)
            decision = Decision(Effect.DENY, refused.reason)
        else:
            refused, decision = None, world.situation(asked, at).decide()
        id_ = _decision_id(at, random)
        (record,) = build_records(
            decision.effect,
            refused or token,
            [asked.question],
            [decision],
            [id_],
            caller=caller,
            revision=1,
            decided_at=at,
        )
        yield KIND_RECORD + encode(record)


def write_history(directory: Path, records: Iterator[bytes], now: float) -> None:
    """Writes the decision log of a process that has ended; the server ships it."""
    writer = LogWriter(directory / "history", "history", lambda: now)
    writer.open()
    batch: list[bytes] = []
    for record in records:
        batch.append(record)
        if len(batch) == BATCH:
            writer.append(batch, 0)
            batch = []
    if batch:
        writer.append(batch, 0)
    writer.close()


def _decision_id(at: float, random: Random) -> str:
    """A UUIDv7 of another time than now (RFC 9562, 5.7)."""
    number = int(at * 1000) << 80 | 7 << 76 | random.getrandbits(12) << 64
    return str(UUID(int=number | 2 << 62 | random.getrandbits(62)))


def _any(made: Company, random: Random) -> Asked:
    if random.random() < 0.15:
        user = f"user_support_{random.randrange(1, 4)}"
        permission = random.choice(("case:view", "case:answer", "case:answer", "report:export"))
        return _asked(user, None, permission, None)
    organization = random.choice(list(made.members))
    user = random.choice(made.members[organization])
    if random.random() < 0.2:
        return _asked(user, organization, random.choice(("report:view", "report:export")), None)
    weights = {"invoice:view": 8, "invoice:edit": 3, "invoice:approve": 2, "invoice:delete": 1}
    (permission,) = random.choices(list(weights), list(weights.values()))
    invoice = random.choice(made.invoices[organization])
    if random.random() < 0.03:
        invoice = "2019-unknown"
    return _asked(user, organization, permission, invoice, random.choice((2.0, 45.0)))


def _asked(
    user: str, organization: str | None, permission: str, invoice: str | None, factor: float = 5.0
) -> Asked:
    resource = None if invoice is None else Resource("invoice", invoice)
    actor = Actor(user, f"sess_{user.removeprefix('user_')}", organization)
    return Asked(actor, Question(permission, resource), second_factor_minutes=factor)
