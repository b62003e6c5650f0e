"""The golden decision matrix: who may do what to which, as a table that people read.

`python -m tests.decision.matrix` writes it again; a test compares it with what is decided.
"""

from pathlib import Path

from pdp.document import parse_document
from pdp.model import Actor, Effect, Question, Resource
from tests.kit.cases import Asked, decide_document

GOLDEN = Path(__file__).parent.parent / "golden"
POLICY = GOLDEN / "demo_policy.yaml"
MATRIX = GOLDEN / "decision_matrix.md"

USERS = {
    "ADMIN": "user_admin",
    "INSTRUCTOR": "user_instructor",
    "STUDENT": "user_student",
    "no role": "user_nobody",
}
COURSES = {
    "own": "the instructor's own",
    "archived": "the instructor's own, archived",
    "of-another": "somebody else's",
    "without-attributes": "without attributes",
    "elsewhere": "in another organization",
    "of-nobody": "stored without an organization",
    "not-stored": "not stored",
}
COURSE_PERMISSIONS = ("course:view", "course:create", "course:edit", "course:delete")


def render() -> str:
    """The matrix as Markdown."""
    document = parse_document(POLICY.read_text(encoding="utf-8"))
    rows = [
        (permission, label, Resource("course", course_id))
        for permission in COURSE_PERMISSIONS
        for course_id, label in COURSES.items()
    ]
    rows.insert(len(COURSES), ("course:create", "none named", None))
    rows.append(("lesson:view", "first lesson", Resource("lesson", "first")))
    lines = [
        "# Who may do what",
        "",
        "Decisions of the example policy (`demo_policy.yaml` beside this page). A denial names its",
        "reason. Everyone acts for the organization `org_school` and is a member of it.",
        "",
        "| permission | course | " + " | ".join(USERS) + " |",
        "|---|---|" + "---|" * len(USERS),
    ]
    for permission, label, resource in rows:
        cells = []
        for user_id in USERS.values():
            actor = Actor(user_id, "sess_1", "org_school")
            question = Question(permission, resource)
            decision = decide_document(document, (), Asked(actor, question))
            allowed = decision.effect is Effect.ALLOW
            cells.append("**allow**" if allowed else decision.reason.name.lower().replace("_", " "))
        lines.append(f"| {permission} | {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    MATRIX.write_text(render(), encoding="utf-8")
