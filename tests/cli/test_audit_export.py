"""`pdp audit export`: decisions and changes of a filter, each once, in the format of a SIEM."""

import json
from pathlib import Path

import pytest
from pdpapi.v1.administration_service_pb2 import CreatePermissionRequest

from pdp.cli import decisions
from tests.cli.running import Run
from tests.kit.server import running_server
from tests.kit.siem.forwarding import deny
from tests.kit.waiting import eventually


def test_an_export_has_each_decision_of_the_filter_once(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "PAGE_ITEMS", 40)
    with running_server(tmp_path) as (server, stubs):
        monkeypatch.setenv("PDP_SERVER", server.environment["PDP_SERVER"])
        ids = deny(stubs, 250)

        def exported(format_: str, *arguments: str) -> list[str]:
            done = run("audit", "export", "--format", format_, *arguments)
            assert done.status == 0, done
            return done.out.splitlines()

        eventually(lambda: len(exported("json")) == 250)
        assert exported("json") == run("audit", "list", "--json").out.splitlines()
        ocsf = [json.loads(line) for line in exported("ocsf")]
        assert [event["metadata"]["uid"] for event in ocsf] == ids[::-1]
        assert {event["status_code"] for event in ocsf} == {"TOKEN_MALFORMED"}
        ecs = [json.loads(line)["event"]["id"] for line in exported("ecs")]
        assert ecs == ids[::-1]
        assert all(line.startswith("CEF:0|PDP|PDP|") for line in exported("cef"))

        permission = ocsf[7]["api"]["operation"]
        (one,) = exported("ocsf", "--permission", permission)
        assert json.loads(one) == ocsf[7]
        assert exported("ocsf", "--decision", "allow") == []
        assert exported("ocsf", "--since", "2100-01-01T00:00:00") == []
        assert len(exported("ocsf", "--until", "2100-01-01T00:00:00")) == 250
        unknown = run("audit", "export", "--format", "xml")
        assert (unknown.status, "xml" in unknown.err) == (2, True)

        reason = CreatePermissionRequest(permission={"name": "course:view"}, reason="OPS-12")
        stubs.administration.CreatePermission(reason, timeout=10)
        (change,) = [json.loads(line) for line in exported("ocsf", "--changes")]
        assert (change["class_uid"], change["activity_id"]) == (3004, 1)
        assert change["entity"] == {"type": "permission", "uid": "course:view"}
        assert exported("json", "--changes") == run("audit", "changes", "--json").out.splitlines()
        assert exported("cef", "--changes", "--caller", "nobody") == []
        assert exported("cef", "--changes", "--since", "2100-01-01T00:00:00") == []
        mixed = run("audit", "export", "--format", "cef", "--changes", "--user", "user_1")
        assert (mixed.status, "--changes" in mixed.err) == (2, True)
