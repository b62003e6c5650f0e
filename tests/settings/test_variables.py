"""A misspelled variable is an error; variables of other programs are not."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pdp.settings.programs import PROGRAMS
from pdp.settings.variables import unknown_variables
from tests.kit.server import ServerProcess

ROOT = Path(__file__).parents[2]
SUFFIXES = {".py", ".ts", ".tsx", ".go", ".mjs"}


def said(name: str, value: str = "x") -> str | None:
    return unknown_variables({name: value}, PROGRAMS).get(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PDP_DATABSE_URL", "PDP_DATABASE_URL"),
        ("PDP_DATABASE_URI", "PDP_DATABASE_URL"),
        ("PDP_DB_URL", "PDP_DATABASE_URL"),
        ("pdp_databse_url", "PDP_DATABASE_URL"),
        ("PDP_ISSUER", "PDP_ISSUERS"),
        ("PDP_CLERK_SECRET_KEY", "PDP_CLERK__SECRET_KEY"),
        ("PDP_CLERK__SECRETKEY", "PDP_CLERK__SECRET_KEY"),
        ("PDP_TLS__CERTIFICATE", "PDP_TLS__CERTIFICATE_FILE"),
        ("PDP_SIDECAR_UPSTREAM", "PDP_SIDECAR_UPSTREAMS"),
        ("PDP_UPSTREAMS", "PDP_SIDECAR_UPSTREAMS"),
        ("PDP_CONFIG_FILE", "PDP_CONFIG"),
        ("PDP_APIKEY", "PDP_API_KEY"),
    ],
)
def test_a_misspelled_variable_is_named_with_what_was_meant(name: str, meant: str) -> None:
    assert said(name) == f"there is no setting {name}; did you mean {meant}?"


@pytest.mark.parametrize("name", ["PDP_", "PDP_FOO", "PDP_CALLERS__0__NAME", "PDP_HTTP_PORT"])
def test_a_variable_that_nothing_reads_is_named_though_nothing_is_near(name: str) -> None:
    assert (said(name) or "").startswith(f"there is no setting {name}")


@pytest.mark.parametrize(
    "name",
    [
        *("PDP_DATABASE_URL", "pdp_Listen", "PDP_CLERK", "PDP_CLERK__WEBHOOK_SECRETS"),
        *("PDP_TLS__CLIENT_CA_FILE", "PDP_SIDECAR_UPSTREAM_TLS__CA_FILE", "PDP_CONFIG"),
        *("PDP_SIDECAR_CONFIG", "PDP_SERVER", "PDP_TOKEN", "PDPX_DATABSE_URL", "XPDP_FOO"),
    ],
)
def test_what_is_read_and_what_is_not_ours_is_nothing_to_speak_of(name: str) -> None:
    assert said(name) is None


@pytest.mark.parametrize("service", ["PDP", "PDP_HTTP", "PDP_A_B"])
def test_what_kubernetes_sets_for_services_is_ignored(service: str) -> None:
    address = "tcp://10.96.0.1:50051"
    values = {
        f"{service}_SERVICE_HOST": "10.96.0.1",
        f"{service}_SERVICE_PORT": "50051",
        f"{service}_SERVICE_PORT_GRPC": "50051",
        f"{service}_PORT": address,
        **{
            f"{service}_PORT_{port}_{protocol}{part}": address
            for port in (53, 50051)
            for protocol in ("TCP", "UDP", "SCTP")
            for part in ("", "_PROTO", "_PORT", "_ADDR")
        },
    }
    assert unknown_variables(values, PROGRAMS) == {}


def sources(directory: Path) -> Iterator[Path]:
    """Files of programs, without a look at the many of `node_modules`."""
    for parent, folders, files in os.walk(directory):
        folders[:] = [folder for folder in folders if folder != "node_modules"]
        paths = (Path(parent, file) for file in files)
        yield from (path for path in paths if path.suffix in SUFFIXES)


def test_every_variable_that_the_project_itself_reads_is_known() -> None:
    reads = re.compile(r"(?:environ[^\n]{0,20}|getenv\(|env\.|Getenv\()[\"'.(\[]*(PDP_[A-Z_]+)")
    names = {
        name
        for folder in ("pdp", "clients", "examples", "tests", "bench")
        for path in sources(ROOT / folder)
        for name in reads.findall(path.read_text(errors="replace"))
        if path != Path(__file__)
    }
    assert {"PDP_TEST_POSTGRES_URL", "PDP_PYTHON", "PDP_SERVER"} <= names
    assert unknown_variables(dict.fromkeys(names, ""), PROGRAMS) == {}


def test_servers_do_not_start_with_a_misspelled_variable_and_commands_warn(
    tmp_path: Path,
) -> None:
    server = ServerProcess(tmp_path)
    server.environment["PDP_DATABSE_URL"] = "postgresql://pdp:canary@db/pdp"
    del server.environment["PDP_DATABASE_URL"]
    want = "there is no setting PDP_DATABSE_URL; did you mean PDP_DATABASE_URL?"
    for command in ("serve", "sidecar"):
        done = server.pdp(command)
        assert (done.returncode, done.stderr) == (2, f"pdp: {want}\n")
    assert not (tmp_path / "pdp.db").exists()
    done = server.pdp("key")
    assert done.returncode == 0
    assert done.stderr == f"pdp: warning: {want}\n"
    assert "warning" not in done.stdout
