"""`pdp get`, `pdp describe` and `pdp delete` against a real server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pdpapi.v1 import administration_service_pb2 as pb
from pdpapi.v1.core_pb2 import Resource, ResourceRef

from pdp.cli.entities import KINDS
from pdp.kinds import KINDS as MODEL_KINDS
from tests.cli.hostile import unsafe
from tests.cli.running import Run
from tests.kit import prefork
from tests.kit.school import POLICY
from tests.kit.server import ServerProcess, Stubs, running_server

HOSTILE = [
    *("no", "0o17", "1e3", "2026-01-01", "null", "~", "- a", "a: b", "!!python/object:x", "'", '"'),
    *("\u202eevil", "caf\u00e9\u2028", "#x", "&a", "*a", "@x", "%TAG", "{a: b}", " x ", "=1+1"),
]


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Stubs]]:
    with running_server(tmp_path_factory.mktemp("school"), POLICY) as (server, stubs):
        for index, text in enumerate(HOSTILE):
            user = pb.User(id=f"user_hostile_{index:02}", name=text)
            user.attributes.update({text: text})
            stubs.administration.CreateUser(pb.CreateUserRequest(user=user), timeout=10)
        yield server, stubs


def names(run: Run, *arguments: str) -> list[str]:
    done = run("get", *arguments, "-o", "name")
    assert done.status == 0, done
    return done.out.splitlines()


def test_the_table_holds_every_kind_with_its_key_and_only_fields_of_its_message() -> None:
    assert {kind.name for kind in KINDS} == set(MODEL_KINDS)
    for kind in KINDS:
        fields = getattr(pb, kind.message, Resource).DESCRIPTOR.fields_by_name
        assert {*kind.columns, *kind.wide, *kind.key} <= set(fields)
        request = getattr(pb, f"Get{kind.message}Request").DESCRIPTOR
        assert kind.key == tuple(field.name for field in request.fields)
        assert bool(kind.separator) == (len(kind.key) > 1)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_kind_is_listed_by_singular_and_plural_name_and_each_entity_is_found_by_its_name(
    at: Run, kind: object
) -> None:
    plural, singular = kind.plural, kind.name.replace("_", "-")
    listed = names(at, plural)
    assert listed
    assert names(at, singular) == listed
    assert names(at, listed[0]) == [listed[0]]
    assert names(at, singular, listed[0].partition("/")[2]) == [listed[0]]
    described = at("describe", listed[0])
    assert described.status == 0
    assert described.out.splitlines()[0]
    for output in ("table", "wide"):
        assert at("get", plural, "-o", output).status == 0


def test_filters_select_and_a_filter_of_another_kind_is_refused_with_those_it_has(at: Run) -> None:
    assert names(at, "grants", "--role", "ADMIN") == ["grant/g-b6a0c8133e333141"]
    assert names(at, "memberships", "--user", "user_sam") == ["membership/org_school/user_sam"]
    assert names(at, "resources", "--type", "lesson") == ["resource/lesson:algebra-1"]
    assert names(at, "rules", "--role", "ADMIN", "--effect", "deny") == [
        "rule/ADMIN.deny.course:delete.3a2312d3"
    ]
    assert names(at, "users", "--status", "disabled") == []
    assert names(at, "users", "--status", "ACTIVE") == names(at, "users")
    assert "'baned' is not one of active, disabled" in at("get", "users", "--status", "baned").err
    refused = at("get", "users", "--effect", "deny")
    assert (refused.status, refused.out) == (2, "")
    assert "users have no --effect; they have --status" in refused.err
    assert at("get", "user", "user_ada", "--status", "active").status == 2


def test_pages_put_together_are_the_whole_list(at: Run) -> None:
    whole = names(at, "users")
    assert len(whole) == 3 + len(HOSTILE)
    together: list[str] = []
    token: tuple[str, ...] = ()
    while True:
        done = at("get", "users", "-o", "name", "--limit", "7", *token)
        together += done.out.splitlines()
        if "--page-token" not in done.err:
            break
        assert len(done.out.splitlines()) == 7
        token = ("--page-token", done.err.split()[-1])
    assert together == whole
    filtered = at("get", "users", "-o", "name", "--limit", "1", "--status", "active")
    assert filtered.out == f"{whole[0]}\n"
    assert at("get", "users", "--page-token", "forged").status == 2


def test_json_and_yaml_give_back_hostile_texts_as_they_are(at: Run) -> None:
    as_json = at("get", "users", "-o", "json")
    as_yaml = at("get", "users", "-o", "yaml")
    objects = [json.loads(line) for line in as_json.out.splitlines()]
    assert [shown["name"] for shown in objects if "hostile" in shown["id"]] == HOSTILE
    assert list(yaml.safe_load_all(as_yaml.out)) == objects
    # Read without types, each text is written plain only if no YAML could take it otherwise.
    assert as_json.out.isascii()
    assert as_yaml.out.isascii()
    assert '"name": "0o17"' not in as_yaml.out
    assert 'name: "0o17"' in as_yaml.out
    assert not unsafe(as_json.out + as_yaml.out)
    for output in ("table", "wide"):
        shown = at("get", "users", "-o", output)
        assert not unsafe(shown.out)
        assert "\\u202eevil" in shown.out


def test_a_name_that_does_not_print_is_not_printed_as_that_of_another(
    at: Run, school: tuple[ServerProcess, Stubs]
) -> None:
    """`pdp get -o name | xargs pdp delete` must delete what was listed."""
    stubs = school[1]
    resource = Resource(type="lesson", id="a\u202eb")
    stubs.administration.CreateResource(pb.CreateResourceRequest(resource=resource), timeout=10)
    done = at("get", "resources", "--type", "lesson", "-o", "name")
    assert (done.status, done.out) == (2, "resource/lesson:algebra-1\n")
    assert "1 names hold characters that do not print: -o json shows them" in done.err
    stubs.administration.DeleteResource(
        pb.DeleteResourceRequest(type="lesson", id="a\u202eb"), timeout=10
    )


def test_describe_shows_what_belongs_to_an_entity(at: Run) -> None:
    lines = [line.rstrip() for line in at("describe", "user", "user_sam").out.splitlines()]
    assert lines[:4] == [
        "id: user_sam",
        "email: sam@school.example",
        "name: Sam Student",
        "status: active",
    ]
    assert "memberships:" in lines
    assert any(line.startswith("g-a41444c37cd488c3  STUDENT") for line in lines)
    assert at("describe", "users").status == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("user", "nobody"), "NOT_FOUND: there is no user 'nobody'"),
        (("usrs",), "'usrs' is not a kind; did you mean users?"),
        (("membership", "org_school"), "a membership is written as ORGANIZATION/USER"),
        (("resource", "algebra"), "a resource is written as TYPE:ID"),
        (("user/user_ada", "role/ADMIN"), "names of one kind only"),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(
    at: Run, arguments: tuple[str, ...], error: str
) -> None:
    for command in ("get", "describe", "delete"):
        done = at(command, *arguments)
        assert (done.status, done.out) == (2, "")
        assert error in done.err.splitlines()[0]


def test_delete_deletes_what_is_named_and_nothing_if_one_name_is_malformed(
    at: Run, school: tuple[ServerProcess, Stubs]
) -> None:
    stubs = school[1]
    for name in ("one", "two"):
        stubs.administration.CreateResource(
            pb.CreateResourceRequest(
                resource=Resource(
                    type="lesson",
                    id=name,
                    organization_id="org_school",
                    parent=ResourceRef(type="course", id="algebra"),
                )
            ),
            timeout=10,
        )
    assert at("delete", "resources", "lesson:one", "nonsense").status == 2
    assert "resource/lesson:one" in names(at, "resources")
    done = at("delete", "resource/lesson:one", "resource/lesson:two")
    assert done.status == 0
    assert done.out.splitlines()[0].startswith("deleted resource lesson:one at revision ")
    assert "resource/lesson:one" not in names(at, "resources")


def test_watch_prints_what_is_there_and_then_each_change(tmp_path: Path) -> None:
    with running_server(tmp_path, POLICY) as (server, stubs):
        watch = ("get", "users", "--watch", "-o", "json")
        with prefork.output_of(watch, cwd=tmp_path, env=server.environment) as output:

            def event() -> tuple[str, str, str]:
                fields = json.loads(output.readline())
                return fields["event"], fields["object"]["id"], fields["object"].get("name", "")

            first = [event() for _ in range(3)]
            assert [row[:2] for row in first] == [
                ("ADDED", "user_ada"),
                ("ADDED", "user_ivan"),
                ("ADDED", "user_sam"),
            ]
            stubs.administration.UpdateUser(
                pb.UpdateUserRequest(user=pb.User(id="user_sam", name="Samuel")), timeout=10
            )
            assert event() == ("CHANGED", "user_sam", "Samuel")
            # Through a restart of the server nothing is missed.
            server.stop()
            server.start()
            with server.channel() as channel:
                from tests.kit.server import stubs_on

                stubs_on(channel).administration.CreateUser(
                    pb.CreateUserRequest(user=pb.User(id="user_new")), timeout=10
                )
            assert event() == ("ADDED", "user_new", "")
