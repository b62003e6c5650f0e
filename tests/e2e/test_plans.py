"""A list of an application, from a token to the rows of its own database, through a real server."""

import json

import pytest
from pdp_client import Guard, PdpRefused, Resource
from pdp_client.sqlalchemy import register, resource_of, where
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tests.kit.server import ServerProcess, Stubs, token_of


class Base(DeclarativeBase):
    pass


class Course(Base):
    __tablename__ = "courses"
    id: Mapped[int] = mapped_column(primary_key=True)
    school_id: Mapped[str | None]
    owner: Mapped[str | None]


register(
    Course,
    "course",
    id=Course.id,
    organization=Course.school_id,
    attributes={"owner": Course.owner},
)


@pytest.fixture
def session():
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(
            Course(school_id=school, owner=owner)
            for school in ("org_school", "org_other", None, "")
            for owner in ("user_ivan", "user_ada", None)
        )
        session.flush()
        yield session
    engine.dispose()


@pytest.fixture
def guard(server: ServerProcess, stubs: Stubs):
    with Guard(f"127.0.0.1:{server.port}", deadline_seconds=10) as guard:
        yield guard


@pytest.mark.parametrize("user", ["user_ada", "user_ivan", "user_sam", "user_nobody"])
@pytest.mark.parametrize("permission", ["course:view", "course:edit", "course:delete"])
def test_a_query_finds_the_rows_that_check_allows(guard, session, user, permission):
    token = token_of(user, organization_id="org_school")
    if permission == "course:delete":
        # The policy reads an attribute that the model does not describe.
        plan = guard.plan(token, permission, "course")
        if not plan.nothing:
            with pytest.raises(ValueError, match=r"course\.archived is not described"):
                where(plan, Course)
        return
    plan = guard.plan(token, permission, "course")
    found = session.scalars(select(Course).where(where(plan, Course)).order_by(Course.id)).all()
    rows = session.scalars(select(Course).order_by(Course.id)).all()
    allowed = [row for row in rows if guard.check(token, permission, resource_of(row)).allowed]
    assert found == allowed


def test_a_row_asks_about_itself_as_the_filter_reads_it(session):
    row = session.get(Course, 1)
    assert resource_of(row) == Resource(
        "course", "1", organization_id="org_school", attributes={"owner": "user_ivan"}
    )


def test_a_plan_for_another_type_is_refused(guard):
    plan = guard.plan(token_of("user_ada", organization_id="org_school"), "course:view", "lesson")
    with pytest.raises(ValueError, match="the plan is for resources of type lesson"):
        where(plan, Course)


def test_the_command_prints_the_filter_as_json(server, stubs):
    token = token_of("user_ivan", organization_id="org_school")
    done = server.pdp(
        "plan", "course:edit", "--server", f"127.0.0.1:{server.port}", "--token", token
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert (printed["version"], printed["resourceType"]) == (1, "course")
    assert printed["outcome"] == "PLAN_OUTCOME_FILTER"
    assert '"user_ivan"' in done.stdout


def test_a_malformed_type_is_refused(guard):
    with pytest.raises(PdpRefused):
        guard.plan(token_of("user_ada"), "course:view", "Course!")
