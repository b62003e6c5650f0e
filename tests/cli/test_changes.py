"""`pdp audit changes`, `pdp diff` and `pdp export --revision`: who changed what."""

import json
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from pdpapi.v1 import administration_service_pb2 as pb
from pdpapi.v1.audit_service_pb2 import ListChangesRequest

from tests.cli.running import Run
from tests.kit.server import ServerProcess, Stubs, running_server, stubs_on
from tests.kit.waiting import eventually
from tests.kit.wire.errors import error_info, rpc_error
from tests.kit.wire.tls import KEY, OTHER_KEY, bearer, digest

FIRST = """\
version: 1
permissions: [course:view]
roles: {READER: {allow: [course:view]}}
"""
SECOND = """\
version: 1
permissions: [course:view, course:edit]
roles: {READER: {allow: [{permission: course:view, when: actor.id == 'a'}]}}
"""
ACCOUNT = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def served(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[ServerProcess, Stubs]]:
    """A server with the first policy, and commands that use its database."""
    with running_server(tmp_path) as (server, stubs):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PDP_SERVER", server.environment["PDP_SERVER"])
        monkeypatch.setenv("PDP_DATABASE_URL", server.environment["PDP_DATABASE_URL"])
        done = run("apply", "-", "--reason", "first version", stdin=FIRST)
        assert done.status == 0, done
        yield server, stubs


def test_changes_of_commands_and_callers_are_listed_with_their_reasons(
    served: tuple[ServerProcess, Stubs], run: Run
) -> None:
    _, stubs = served
    hostile = "\u202eevil\u00a0[red]"
    role = pb.Role(name="EDITOR", description=hostile)
    stubs.administration.CreateRole(pb.CreateRoleRequest(role=role, reason="ticket 12"))
    role.description = "calm"
    stubs.administration.UpdateRole(pb.UpdateRoleRequest(role=role))
    stubs.administration.DeleteRole(pb.DeleteRoleRequest(name="EDITOR", reason=hostile))

    table = run("audit", "changes").out
    heading, deleted, updated, created, *applied = table.splitlines()
    assert heading.split() == ["time", "revision", "by", "change", "reason"]
    assert "delete role EDITOR" in deleted
    assert "\\u202eevil\\xa0[red]" in deleted
    assert "\u202e" not in table
    assert 'update role EDITOR: description "\\u202eevil\\u00a0[red]" -> "calm"' in updated
    assert "api anonymous" in created
    assert "ticket 12" in created
    assert len(applied) == 3
    for line in applied:
        assert f"command {ACCOUNT}" in line
        assert "first version" in line

    def listed(*arguments: str) -> list[dict[str, object]]:
        done = run("audit", "changes", "--json", *arguments)
        assert done.status == 0, done
        return [json.loads(line) for line in done.out.splitlines()]

    assert len(listed()) == 6
    assert len(listed("--kind", "role", "--entity", "EDITOR")) == 3
    assert len(listed("--caller", "anonymous", "--limit", "2")) == 2
    assert [record["kind"] for record in listed("--source", "command", "--kind", "rule")] == [
        "rule"
    ]
    assert listed("--since", "2999-01-01T00:00:00") == []
    assert run("audit", "changes", "--entity", "x").status == 2
    more = run("audit", "changes", "--limit", "2").out.splitlines()[-1]
    assert more == "there are more than these 2: --limit shows more, --json all"


def test_an_earlier_policy_is_exported_and_compared(
    served: tuple[ServerProcess, Stubs], run: Run, tmp_path: Path
) -> None:
    before = run("export", "--revision", "1").out
    assert run("apply", "-", "--reason", "ticket 12", stdin=SECOND).status == 0
    assert run("export", "--revision", "1").out == before
    sections = "permissions,resource_types,roles,grants,routes"
    assert run("export", "--revision", "2").out == run("export", "--sections", sections).out
    done = run("diff", "@1", "@2")
    assert done.status == 1
    by = f"    revision 2: command {ACCOUNT}: ticket 12"
    added, by_added, rule, by_rule, again = done.out.splitlines()
    assert (added, by_added, by_rule, again) == ("create permission course:edit", by, by, by)
    assert rule.endswith(""": when (none) -> "actor.id == 'a'\"""")
    assert run("diff", "@2", "@2").status == 0
    assert run("diff", "@2", "@1").out.startswith("update rule")

    (tmp_path / "first.yaml").write_text(FIRST)
    (tmp_path / "second.yaml").write_text(SECOND)
    files = run("diff", "first.yaml", "second.yaml")
    assert files.status == 1
    assert files.out.splitlines() == [added, rule]
    assert run("diff", "server", "second.yaml").status == 0
    assert run("diff", "first.yaml", "server").out == files.out
    assert run("diff", "@1", "first.yaml").status == 0
    for wrong in ("@x", "@-1", "@9999", "missing.yaml", "@" + "9" * 30):
        refused = run("diff", wrong, "second.yaml")
        assert (refused.status, refused.out) == (2, ""), refused
    assert run("export", "--revision", "9").status == 2


@pytest.mark.parametrize("reason", ["two\nlines", "x" * 501, "\x1b[31m"])
def test_a_reason_that_is_not_one_line_changes_nothing(
    served: tuple[ServerProcess, Stubs], run: Run, reason: str
) -> None:
    done = run("apply", "-", "--reason", reason, stdin=SECOND)
    assert done.status == 2
    assert run("export", "--revision", "1").status == 0
    assert run("export", "--revision", "2").status == 2


def test_a_caller_without_the_capability_audit_reads_no_changes(tmp_path: Path) -> None:
    callers = [
        {"name": "admin", "api_key_sha256": digest(KEY), "may": ["decide", "administer", "report"]},
        {"name": "auditor", "api_key_sha256": digest(OTHER_KEY), "may": ["audit"]},
    ]
    server = ServerProcess(tmp_path, {"CALLERS": callers})
    try:
        server.start()
        with server.channel() as channel:
            stubs = stubs_on(channel)
            role = pb.CreateRoleRequest(role=pb.Role(name="R1"), reason="why")
            stubs.administration.CreateRole(role, metadata=bearer(KEY), timeout=10)
            for metadata, code in (
                (bearer(KEY), grpc.StatusCode.PERMISSION_DENIED),
                (bearer("wrong"), grpc.StatusCode.UNAUTHENTICATED),
                ((), grpc.StatusCode.UNAUTHENTICATED),
            ):
                error = rpc_error(
                    lambda metadata=metadata: stubs.audit.ListChanges(
                        ListChangesRequest(), metadata=metadata, timeout=10
                    )
                )
                assert error.code() is code
            error = rpc_error(
                lambda: stubs.audit.ListChanges(ListChangesRequest(), metadata=bearer(KEY))
            )
            assert error_info(error).metadata["capability"] == "audit"
            [change] = stubs.audit.ListChanges(
                ListChangesRequest(), metadata=bearer(OTHER_KEY), timeout=10
            ).changes
            assert (change.caller, change.reason) == ("admin", "why")
    finally:
        server.stop()


def test_verify_counts_the_changes_that_the_server_has_appended(
    served: tuple[ServerProcess, Stubs], run: Run
) -> None:
    def verified() -> bool:
        done = run("audit", "verify")
        return done.status == 0 and "3 administration records in the database" in done.out

    eventually(verified)
