"""deploy/kubernetes says what the API server takes, what our settings take, and holds together.

The schemas are Kubernetes' own, of the wheel `kubernetes-validate`, strict: an unknown field is
refused. They do not know what our program reads; the rest of the tests does.
"""

import copy
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import kubernetes_validate
import pytest
from pdp_client.transport import _OPTIONS as GUARD_OPTIONS

from pdp.database.timeouts import POOL_CONNECTIONS_MAX
from pdp.http.application import WEBHOOK_PATH
from pdp.settings import Settings, SidecarSettings, is_loopback_address
from tests.deploy.manifests import (
    ROOT,
    Cluster,
    Document,
    Part,
    containers,
    documents,
    kustomized,
    load_settings,
    parse_command,
    secret_values,
    unknown_variables,
)

KUBERNETES = ROOT / "deploy" / "kubernetes"
EXAMPLES = sorted((KUBERNETES / "examples").glob("*.yaml"))
SERVICE = kustomized(KUBERNETES)
ALL = Cluster([*SERVICE.objects, *(document for path in EXAMPLES for document in documents(path))])
PAGES = re.findall(
    r"```yaml\n(apiVersion: .*?)```", (ROOT / "docs" / "deploy.md").read_text(), re.DOTALL
)
VERSIONS = ["1.30", kubernetes_validate.latest_version()]
"""The oldest for which the files are meant, and the newest that the wheel knows."""
POSTGRESQL_CONNECTIONS = 100 - 3
"""PostgreSQL's default, without those that it keeps for superusers."""
SETTINGS = {"serve": Settings, "sidecar": SidecarSettings}
PODS = [(owner, pod) for owner, pod in ALL.pods()]
PARTS = list(ALL.parts())


def name_of(one: object) -> str | None:
    if isinstance(one, dict):
        return f"{one['kind']}-{one['metadata']['name']}" if "kind" in one else None
    return one.name if isinstance(one, Part) else None


# --- the schema ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_one_that_kubernetes_knows(version: str) -> None:
    import yaml

    pages = [yaml.safe_load(page) for page in PAGES]
    assert len(ALL.objects) > 10
    assert pages
    for manifest in (*ALL.objects, *pages):
        kubernetes_validate.validate(manifest, version, strict=True)


def _container(manifest: Document) -> Document:
    found: Document = manifest["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize(
    "spoil",
    [
        lambda manifest: manifest["spec"].update(replicas="2"),
        lambda manifest: manifest["spec"].update(replica=2),
        lambda manifest: manifest["spec"].pop("selector"),
        lambda manifest: _container(manifest).update(readynessProbe={}),
        lambda manifest: _container(manifest)["readinessProbe"]["httpGet"].pop("port"),
        lambda manifest: _container(manifest)["env"][0].update(value=1),
        lambda manifest: _container(manifest)["securityContext"].update(
            readOnlyRootFileSystem=True
        ),
        lambda manifest: _container(manifest)["resources"].update(limit={}),
    ],
)
def test_the_checker_refuses_what_kubernetes_would(spoil: Callable[[Document], object]) -> None:
    spoiled = copy.deepcopy(SERVICE.named("StatefulSet", "pdp"))
    spoil(spoiled)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(spoiled, VERSIONS[-1], strict=True)


def test_kustomize_takes_every_file_but_the_examples() -> None:
    (kustomization,) = documents(KUBERNETES / "kustomization.yaml")
    there = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert sorted(kustomization["resources"]) == sorted(there)


# --- our own program ----------------------------------------------------------------------------


@pytest.mark.parametrize(("pod", "container", "part"), PARTS, ids=name_of)
def test_containers_of_ours_run_a_command_with_settings_that_it_takes(
    pod: Document, container: Document, part: Part, tmp_path: Path
) -> None:
    command, _ = parse_command(part.command)
    if command == "migrate":
        assert set(part.environment) == {"PDP_DATABASE_URL"}
        return
    assert not unknown_variables(part.environment, SETTINGS[command])
    settings = load_settings(part, tmp_path)
    ports = {port["containerPort"] for port in container["ports"]}
    assert ports == {
        int(address.rpartition(":")[2])
        for address in (settings.listen, settings.http_listen)
        if not address.startswith("unix:")
    }
    # Probes come from the node.
    assert not is_loopback_address(settings.http_listen)
    # The image's file system is read-only: what is written or read is on a volume.
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert any(settings.audit_directory.is_relative_to(mount) for mount in mounts)
    for file in files_of(settings):
        assert str(file.parent) in mounts
    assert not settings.insecure
    first = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert pod["terminationGracePeriodSeconds"] >= first + settings.shutdown_seconds + 30


def files_of(settings: Settings | SidecarSettings) -> list[Path]:
    if isinstance(settings, SidecarSettings):
        assert settings.upstream_tls is not None
        assert settings.upstream_tls.ca_file is not None
        assert settings.api_key_file is not None
        socket = settings.listen.removeprefix("unix://")
        return [settings.upstream_tls.ca_file, settings.api_key_file, Path(socket)]
    assert settings.tls is not None
    return [settings.tls.certificate_file, settings.tls.private_key_file]


def test_the_sidecar_is_native_and_shares_its_socket_with_the_application() -> None:
    pod = ALL.named("Deployment", "courses")["spec"]["template"]["spec"]
    (sidecar,), (application,) = pod["initContainers"], pod["containers"]
    # https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/
    assert sidecar["restartPolicy"] == "Always"
    assert "startupProbe" in sidecar
    assert {"name": "pdp-socket", "mountPath": "/run/pdp"} in sidecar["volumeMounts"]
    assert {"name": "pdp-socket", "mountPath": "/run/pdp"} in application["volumeMounts"]
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == "pdp-socket")
    assert volume["emptyDir"]["medium"] == "Memory"
    # Two users, and the one group for which the socket is.
    assert sidecar["securityContext"]["runAsUser"] != application["securityContext"]["runAsUser"]
    assert pod["securityContext"]["fsGroup"]


def test_the_sidecar_asks_the_service_and_may(tmp_path: Path) -> None:
    (part,) = (part for _, _, part in PARTS if part.command[0] == "sidecar")
    sidecar = load_settings(part, tmp_path)
    assert isinstance(sidecar, SidecarSettings)
    service = SERVICE.named("Service", "pdp")
    name = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
    port = next(port["port"] for port in service["spec"]["ports"] if port["name"] == "grpc")
    assert sidecar.upstreams == (f"dns:///{name}:{port}",)
    assert service["spec"]["clusterIP"] == "None"
    (part,) = (part for _, _, part in PARTS if part.command[0] == "serve")
    (caller,) = load_settings(part, tmp_path).callers
    assert caller.may == {"decide", "report"}
    (policy,) = SERVICE.of_kind("NetworkPolicy")
    wanted = policy["spec"]["ingress"][0]["from"][0]["namespaceSelector"]["matchLabels"]
    courses = ALL.named("Namespace", "courses")["metadata"]
    assert wanted.items() <= courses["labels"].items()


@pytest.mark.parametrize(("pod", "container", "part"), PARTS, ids=name_of)
def test_probes_ask_for_what_is_there(pod: Document, container: Document, part: Part) -> None:
    source = (ROOT / "pdp" / "http" / "application.py").read_text()
    ports = {port["name"] for port in container.get("ports", ())}
    probes = {kind: container[kind] for kind in container if kind.endswith("Probe")}
    for probe in probes.values():
        assert f'Route("{probe["httpGet"]["path"]}"' in source
        assert probe["httpGet"]["port"] in ports
    if probes:
        assert probes["readinessProbe"]["httpGet"]["path"] == "/readyz"
        # A pod that is not ready must not be restarted for it: the database may be away.
        assert {
            probes[probe]["httpGet"]["path"] for probe in probes if probe != "readinessProbe"
        } == {"/healthz"}


def test_the_ingress_of_the_docs_lets_nothing_but_webhooks_in() -> None:
    import yaml

    (ingress,) = (one for one in map(yaml.safe_load, PAGES) if one["kind"] == "Ingress")
    ((path,),) = ([*rule["http"]["paths"]] for rule in ingress["spec"]["rules"])
    assert (path["path"], path["pathType"]) == (WEBHOOK_PATH, "Exact")
    backend = path["backend"]["service"]
    service = SERVICE.named("Service", backend["name"])
    assert backend["port"]["number"] in {port["port"] for port in service["spec"]["ports"]}


# --- that it holds together ---------------------------------------------------------------------


def test_selectors_find_pods_and_ports_are_theirs() -> None:
    for service in ALL.of_kind("Service"):
        (owner,) = ALL.selected(service["spec"]["selector"])
        pod = owner["spec"]["template"]["spec"]
        named = {
            port["name"]: port["containerPort"]
            for container in containers(pod)
            for port in container.get("ports", ())
        }
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            number = named.get(target, target)
            assert number in named.values()
            # Behind a headless service clients reach the pod's own port.
            assert service["spec"].get("clusterIP") != "None" or number == port["port"]
    for owner, _ in PODS:
        wanted = owner["spec"].get("selector", {}).get("matchLabels", {})
        assert wanted.items() <= owner["spec"]["template"]["metadata"]["labels"].items()
    for policy in ALL.of_kind("NetworkPolicy"):
        (owner,) = ALL.selected(policy["spec"]["podSelector"]["matchLabels"])
        names = {
            port["name"]
            for container in owner["spec"]["template"]["spec"]["containers"]
            for port in container["ports"]
        }
        for rule in policy["spec"]["ingress"]:
            assert {port["port"] for port in rule["ports"]} <= names


def test_budget_and_autoscaler_are_those_of_the_service() -> None:
    service = SERVICE.named("StatefulSet", "pdp")
    assert service["spec"]["serviceName"] == SERVICE.named("Service", "pdp")["metadata"]["name"]
    (budget,) = SERVICE.of_kind("PodDisruptionBudget")
    assert SERVICE.selected(budget["spec"]["selector"]["matchLabels"]) == [service]
    (scaler,) = SERVICE.of_kind("HorizontalPodAutoscaler")
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["apiVersion"], target["kind"], target["name"]) == (
        service["apiVersion"],
        service["kind"],
        service["metadata"]["name"],
    )
    # A number here would undo, with each rollout, what the autoscaler has found.
    assert "replicas" not in service["spec"]
    assert scaler["spec"]["minReplicas"] >= 2
    connections = POOL_CONNECTIONS_MAX + 1  # and the one that listens
    assert scaler["spec"]["maxReplicas"] * connections <= POSTGRESQL_CONNECTIONS


def test_a_rollout_waits_until_guards_have_looked_again() -> None:
    """Otherwise the second of two pods goes while guards still believe the first to be away."""
    backoff = dict(GUARD_OPTIONS)["grpc.max_reconnect_backoff_ms"]
    jitter = 1.2  # https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md
    ready = SERVICE.named("StatefulSet", "pdp")["spec"]["minReadySeconds"]
    assert ready > float(backoff) / 1000 * jitter


def test_every_volume_that_is_mounted_is_there_and_the_other_way_round() -> None:
    for owner, pod in PODS:
        claimed = owner["spec"].get("volumeClaimTemplates", ())
        there = {volume["name"] for volume in pod.get("volumes", ())}
        there |= {claim["metadata"]["name"] for claim in claimed}
        mounted = {
            mount["name"]
            for container in containers(pod)
            for mount in container.get("volumeMounts", ())
        }
        assert mounted == there


def test_what_pods_refer_to_exists_or_is_documented_as_made_elsewhere() -> None:
    here = {manifest["metadata"]["name"] for manifest in ALL.of_kind("ConfigMap", "Secret")}
    text = json.dumps([pod for _, pod in PODS])
    wanted = set(
        re.findall(r'"(?:secretName|(?:configMap|secretKeyRef)": {"name)": "([^"]+)"', text)
    )
    assert wanted - here == {"pdp-tls", "pdp-ca"}
    assert here <= wanted
    assert "`pdp-tls`" in (KUBERNETES / "kustomization.yaml").read_text()
    assert "`pdp-ca`" in (KUBERNETES / "examples" / "application.yaml").read_text()


# --- as an attacker looks at it -----------------------------------------------------------------


@pytest.mark.parametrize(("owner", "pod"), PODS, ids=name_of)
def test_pods_keep_the_restricted_pod_security_standard(owner: Document, pod: Document) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, and a
    read-only root file system."""
    assert "--uid 10001" in (ROOT / "Dockerfile").read_text()
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    kinds = {kind for volume in pod.get("volumes", ()) for kind in volume if kind != "name"}
    assert kinds <= {"configMap", "emptyDir", "secret"}
    for container in containers(pod):
        own = dict(container["securityContext"])
        user = own.pop("runAsUser", context.get("runAsUser"))
        assert user == 10001 if container["image"].startswith("pdp:") else user
        assert own == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        assert not {"hostPort"} & {key for port in container.get("ports", ()) for key in port}


def test_other_services_add_no_variables_to_our_containers() -> None:
    """Kubernetes makes `PDP_PORT=tcp://...` of a service that is named `pdp`."""
    assert all(pod["enableServiceLinks"] is False for pod, _, _ in PARTS)


def test_secrets_are_referred_to_and_nowhere_written() -> None:
    assert not SERVICE.of_kind("Secret")
    for pod, container, _ in PARTS:
        for variable in container.get("env", ()):
            if re.search("KEY$|SECRET|PASSWORD|DATABASE_URL", variable["name"]):
                assert "secretKeyRef" in variable["valueFrom"], (pod, variable["name"])


def test_the_examples_open_nothing() -> None:
    """Somebody applies them as they are: no key of theirs may be one that the service accepts."""
    values = list(secret_values(ALL.of_kind("Secret")))
    assert values
    assert all("replace-me" in value for value in values)
    digests = {hashlib.sha256(value.encode()).hexdigest() for value in values}
    text = (KUBERNETES / "pdp.toml").read_text()
    assert not [digest for digest in digests if digest in text]
    assert set(re.findall("[0-9a-f]{64}", text)) == {"0" * 64}
    assert "insecure" not in text
