"""The worked example of docs/row-level-security.md does what the page says."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pdp_client.rls import Actor
from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from pdp.decision import build_policy
from pdp.document import parse_document
from pdp.model import User
from pdp.rls.config import parse_config
from tests.kit.decision.reference import World
from tests.kit.rls.database import acting, apply, put_facts

PAGE = (Path(__file__).parents[2] / "docs" / "row-level-security.md").read_text()
IVAN = Actor("user_ivan", "sess_1", "org_school")
_TABLE = """
ALTER TABLE courses RENAME TO other_courses;
CREATE TABLE courses (id text, organization_id text, owner_id text, title text, archived boolean);
INSERT INTO courses VALUES
    ('own', 'org_school', 'user_ivan', 'a', NULL), ('old', 'org_school', 'user_ivan', 'b', true),
    ('maria', 'org_school', 'user_maria', 'c', false),
    ('other', 'org_other', 'user_ivan', 'd', NULL);
GRANT ALL ON courses TO app;
"""


def block(language: str) -> str:
    found = re.search(rf"^( *)```{language}\n(.*?)^ *```", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None
    return "\n".join(line.removeprefix(found[1]) for line in found[2].splitlines())


@pytest.fixture
def example(connection: Connection) -> Iterator[Connection]:
    """The tables and facts of the example."""
    connection.exec_driver_sql(_TABLE)
    document = parse_document(
        "permissions: [course:view, course:create, course:edit]\n" + block("text")
    )
    world = World(
        roles=list(document.roles or ()),
        grants=list(document.grants or ()),
        users=[User("user_ivan")],
        memberships={("org_school", "user_ivan"): "org:member"},
    )
    put_facts(connection, world)
    connection.commit()
    policy = build_policy(
        1,
        document.permissions or (),
        document.roles or (),
        document.rules or (),
        document.grants or (),
    )
    apply(connection, policy, parse_config(block("yaml")), now=None)
    yield connection
    connection.rollback()
    connection.exec_driver_sql("DROP TABLE courses; ALTER TABLE other_courses RENAME TO courses")
    connection.commit()


def test_the_worked_example_does_what_the_page_says(example: Connection) -> None:
    def done(statement: str) -> set[str]:
        with acting(example, IVAN.user, IVAN.organization, IVAN.session):
            return set(example.execute(text(statement)).scalars())

    assert done("SELECT id FROM courses") == {"own", "old", "maria"}
    assert done("UPDATE courses SET title = 'x' RETURNING id") == {"own"}
    assert done("DELETE FROM courses RETURNING id") == set()
    with pytest.raises(ProgrammingError, match="new row violates row-level security policy"):
        done("UPDATE courses SET organization_id = 'org_other' RETURNING id")
    with pytest.raises(ProgrammingError, match="permission denied"):
        done("TRUNCATE courses")
