"""docker-compose.yaml: what Compose takes, what our settings take, and what holds together.

The schema is the Compose specification's own, of the wheel `check-jsonschema`. It knows nothing of
our program; the rest of the tests does.
"""

import copy
import ipaddress
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml
from check_jsonschema import main as check_jsonschema
from click.testing import CliRunner

from pdp.settings import Settings, SidecarSettings
from tests.deploy.manifests import (
    ROOT,
    Document,
    Part,
    documents,
    load_settings,
    parse_command,
    unknown_variables,
)

FILE = ROOT / "docker-compose.yaml"
(COMPOSE,) = documents(FILE)
SERVICES: Mapping[str, Document] = COMPOSE["services"]
IMAGE = dict(re.findall(r"^(?:ENV|   ) (PDP_\w+)=(\S+)", (ROOT / "Dockerfile").read_text(), re.M))
"""The variables of our image."""
OURS = [name for name, service in SERVICES.items() if service["image"].startswith("pdp:")]


def part(name: str) -> Part:
    own = {
        variable: re.sub(r"\$\{PDP_ISSUERS:\?[^}]*\}", "https://clerk.example.test", value)
        for variable, value in SERVICES[name].get("environment", {}).items()
    }
    assert not [value for value in own.values() if "$" in value]
    return Part(name, SERVICES[name]["command"], IMAGE | own)


def settings_of(name: str, directory: Path) -> Settings | SidecarSettings:
    return load_settings(part(name), directory)


def check(path: Path) -> int:
    arguments = ["--builtin-schema", "vendor.compose-spec", str(path)]
    return CliRunner().invoke(check_jsonschema, arguments).exit_code


def test_compose_takes_the_file() -> None:
    assert check(FILE) == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda services: services["pdp-1"].update(comand=["serve"]),
        lambda services: services["pdp-1"].update(read_only=["yes"]),
        lambda services: services["postgres"]["healthcheck"].update(retries=["often"]),
        lambda services: services["sidecar"]["depends_on"]["pdp-1"].update(condition="healthy"),
        lambda services: services["sidecar"].update(volumes={"sidecar": "/var/lib/pdp"}),
    ],
)
def test_the_checker_refuses_what_compose_would(
    spoil: Callable[[Mapping[str, Document]], object], tmp_path: Path
) -> None:
    spoiled = copy.deepcopy(COMPOSE)
    spoil(spoiled["services"])
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(spoiled))
    assert check(tmp_path / "compose.yaml") == 1


def test_there_are_a_database_two_replicas_and_a_sidecar(tmp_path: Path) -> None:
    commands = [parse_command(part(name).command)[0] for name in OURS]
    assert sorted(commands) == ["migrate", "serve", "serve", "sidecar"]
    urls = {part(name).environment["PDP_DATABASE_URL"] for name in OURS if name != "sidecar"}
    postgres = SERVICES["postgres"]["environment"]
    assert urls == {
        f"postgresql://{postgres['POSTGRES_USER']}:{postgres['POSTGRES_PASSWORD']}@postgres/pdp"
    }


@pytest.mark.parametrize("name", OURS)
def test_commands_and_variables_are_those_that_our_program_takes(name: str, tmp_path: Path) -> None:
    one = part(name)
    command, _ = parse_command(one.command)
    own = SERVICES[name].get("environment", {})
    assert not unknown_variables(own, SidecarSettings if command == "sidecar" else Settings)
    assert not unknown_variables(IMAGE, Settings)
    if command == "migrate":
        return
    settings = load_settings(one, tmp_path)
    assert any(
        settings.audit_directory.is_relative_to(volume.partition(":")[2])
        for volume in SERVICES[name]["volumes"]
    )
    grpc, http = (address.rpartition(":")[2] for address in (settings.listen, settings.http_listen))
    for published in SERVICES[name]["ports"]:
        address, _, port = published.rpartition(":")
        assert port in {grpc, http}
        # Clear text, and callers that nobody knows: for this machine only.
        assert ipaddress.ip_address(address.rpartition(":")[0]).is_loopback
    health = SERVICES[name].get("healthcheck", {}).get("test") or [
        (ROOT / "Dockerfile").read_text().partition("HEALTHCHECK")[2]
    ]
    assert f"127.0.0.1:{http}/readyz" in health[-1]
    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= (
        settings.shutdown_seconds + 30
    )


def test_the_sidecar_asks_both_replicas(tmp_path: Path) -> None:
    sidecar = settings_of("sidecar", tmp_path)
    assert isinstance(sidecar, SidecarSettings)
    replicas = [name for name in OURS if parse_command(part(name).command)[0] == "serve"]
    ports = {name: settings_of(name, tmp_path).listen.rpartition(":")[2] for name in replicas}
    assert sorted(sidecar.upstreams) == sorted(f"{name}:{port}" for name, port in ports.items())
    assert set(SERVICES["sidecar"]["depends_on"]) == set(replicas)


def test_what_a_service_waits_for_comes_to_that_state() -> None:
    for service in SERVICES.values():
        for name, wanted in service.get("depends_on", {}).items():
            if wanted["condition"] == "service_completed_successfully":
                assert SERVICES[name]["restart"] == "no"
            else:
                assert wanted["condition"] == "service_healthy"
                assert "healthcheck" in SERVICES[name] or name in OURS
    mounted = {
        volume.partition(":")[0] for service in SERVICES.values() for volume in _volumes(service)
    }
    assert mounted == set(COMPOSE["volumes"])
    # Two logs in one directory: the second replica would not start.
    own = [volume for service in SERVICES.values() for volume in _volumes(service)]
    assert len(own) == len(set(own))


def _volumes(service: Document) -> list[str]:
    return list(service.get("volumes", ()))
