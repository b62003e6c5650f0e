"""Role names in Clerk's `public_metadata`: what is written there, and for which users."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from pdp.clerk import role_claims
from pdp.clerk.role_claims import Outcome, find_differences
from pdp.database.engine import open_engine
from pdp.errors import ClerkRefused
from pdp.model import (
    Grant,
    InOrganization,
    OnResource,
    ResourceRef,
    ToOrganizationRole,
    ToUser,
)
from tests.kit.clerk.api_server import too_many
from tests.kit.clerk.role_names import NOW, Clerk, World


@pytest.fixture(scope="module")
def shared_clerk() -> Iterator[Clerk]:
    with Clerk() as server:
        yield server


@pytest.fixture
def clerk(shared_clerk: Clerk) -> Clerk:
    shared_clerk.reset()
    return shared_clerk


@pytest.fixture
def world(engine: Engine, clerk: Clerk) -> World:
    return World(engine, clerk)


@pytest.fixture
def small_world(sqlite_url: str, clerk: Clerk) -> Iterator[World]:
    """On SQLite only, for tests that do not depend on the database."""
    engine = open_engine(sqlite_url)
    yield World(engine, clerk)
    engine.dispose()


def test_the_roles_that_hold_everywhere_now_are_wanted_sorted_and_once(world: World) -> None:
    world.add("user_1")
    world.grant("user_1", "C")
    world.grant("user_1", "B", not_before=NOW, expires_at=NOW + 1)
    world.grant("user_1", "B", expires_at=NOW + 2)
    assert world.wanted("user_1") == ["B", "C"]
    world.grant("user_1", "A", not_before=NOW + 2)
    world.grant("user_1", "A", expires_at=NOW)
    world.grant("user_1", "A", InOrganization("org_1"))
    world.grant("user_1", "A", OnResource(ResourceRef("course", "algebra")))
    world.administrator.create(Grant("", "A", ToOrganizationRole("org:admin")))
    assert world.wanted("user_1") == ["B", "C"]
    world.now = NOW + 2
    assert world.wanted("user_1") == ["A", "C"]


def test_users_that_differ_are_found_page_by_page(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(role_claims, "PAGE_USERS", 2)
    world.add("user_1", "user_2")
    world.add("user_3", "user_4", roles=["B", "A"])
    world.add("user_5", roles=["A", "B"], said=["A", "B"])
    world.add("user_6", said=["A"])
    world.add("user_7", said=[])
    world.administrator.create(Grant("", "A", ToUser("user_unknown")))
    pages = list(find_differences(world.store, world.clock))
    assert [looked_at for looked_at, _ in pages] == [2, 2, 2, 1]
    found = {claim.user_id: claim.wanted for _, page in pages for claim in page}
    assert found == {"user_3": ["A", "B"], "user_4": ["A", "B"], "user_6": []}


def test_what_differs_is_written_and_nothing_else_is_touched(small_world: World) -> None:
    world = small_world
    world.add("user_1", roles=["A"])
    world.add("user_2", roles=["A"], said=["A"])
    world.add("user_3", said=["A"])
    world.add("user_4", roles=["B"])
    world.clerk.remove("user_4")
    world.clerk.answer_next(too_many(retry_after="0"), path="/users/user_1/metadata")
    assert world.push("user_1", "user_2", "user_3", "user_4", "user_5") == [
        ("user_1", Outcome.WRITTEN),
        ("user_2", Outcome.SAME),
        ("user_3", Outcome.WRITTEN),
        ("user_4", Outcome.GONE),
        ("user_5", Outcome.UNKNOWN),
    ]
    assert world.clerk.written == [("user_1", ["A"]), ("user_3", [])]
    assert world.clerk.objects["user_1"]["public_metadata"] == {"theme": "dark", "pdp_roles": ["A"]}


def test_nothing_is_written_into_another_instance(small_world: World) -> None:
    small_world.add("user_1", roles=["A"])
    small_world.settings = small_world.settings.model_copy(update={"instance_id": "ins_other"})
    with pytest.raises(ClerkRefused):
        small_world.push("user_1")
    assert small_world.clerk.written == []
