"""Deployment files, read by our own classes: commands, variables, settings."""

import base64
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from unittest import mock

import yaml
from pydantic import BaseModel

from pdp.cli import command as pdp_command
from pdp.settings import Settings, SidecarSettings

ROOT = Path(__file__).parents[2]

Document: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A container of ours: what it runs, with which variables and files."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)
    """Text by path, of the files that settings come from."""


def documents(path: Path) -> list[Document]:
    return [manifest for manifest in yaml.safe_load_all(path.read_text()) if manifest]


def parse_command(arguments: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The command that `pdp ARGUMENTS` runs, and its options. Raises a UsageError of click."""
    command: Any = pdp_command()
    context = command.make_context("pdp", list(arguments))
    while hasattr(context.command, "commands"):
        name, command, rest = context.command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        context = command.make_context(name, rest, parent=context)
    path: str = context.command_path
    return path.removeprefix("pdp "), dict(context.params)


def unknown_variables(environment: Mapping[str, str], settings: type[BaseModel]) -> set[str]:
    """The `PDP_*` variables that say nothing to these settings: pydantic passes over them."""
    prefix = str(settings.model_config.get("env_prefix", "")).upper()
    known = {prefix + name.upper() for name in (*settings.model_fields, "config")}
    return {
        name
        for name in environment
        if name.startswith("PDP_") and name.partition("__")[0] not in known
    }


class _LoadedError(Exception):
    """Carries the settings that a command has loaded, instead of going on with them."""

    def __init__(self, settings: Settings | SidecarSettings) -> None:
        super().__init__()
        self.settings = settings


def load_settings(part: Part, directory: Path) -> Settings | SidecarSettings:
    """The settings with which `pdp serve` or `pdp sidecar` starts. `directory` is an empty one.

    Raises what these raise where they do not start.
    """
    environment = dict(part.environment)
    for name in ("PDP_CONFIG", "PDP_SIDECAR_CONFIG"):
        if name in environment:
            (directory / "settings.toml").write_text(part.files[environment[name]])
            environment[name] = str(directory / "settings.toml")
    model = SidecarSettings if part.command[0] == "sidecar" else Settings
    load = model.load

    def loaded(*arguments: Any, **overrides: Any) -> Any:
        raise _LoadedError(load(*arguments, **overrides))

    command: Any = pdp_command()
    with run_in(environment, directory), mock.patch.object(model, "load", loaded):
        try:
            command.main(list(part.command), standalone_mode=False)
        except _LoadedError as error:
            return error.settings
    raise AssertionError(f"{part.command} loads no settings")


@contextmanager
def run_in(environment: Mapping[str, str], directory: Path) -> Iterator[None]:
    """With no other `PDP_*` variables than these, in a directory without a `pdp.toml`."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PDP_")}
    before = Path.cwd()
    os.chdir(directory)
    try:
        with mock.patch.dict(os.environ, {**others, **environment}, clear=True):
            yield
    finally:
        os.chdir(before)


# --- Kubernetes ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cluster:
    """The objects of a few files, and how they refer to each other."""

    objects: Sequence[Document]

    def of_kind(self, *kinds: str) -> list[Document]:
        return [manifest for manifest in self.objects if manifest["kind"] in kinds]

    def named(self, kind: str, name: str) -> Document:
        (found,) = (
            manifest for manifest in self.of_kind(kind) if manifest["metadata"]["name"] == name
        )
        return found

    def pods(self) -> Iterator[tuple[Document, Document]]:
        """Each object that makes pods, and the template's `spec`."""
        for manifest in self.of_kind("Deployment", "StatefulSet", "Job"):
            yield manifest, manifest["spec"]["template"]["spec"]

    def selected(self, selector: Mapping[str, str]) -> list[Document]:
        """The objects whose pods have these labels."""
        return [
            one
            for one, _ in self.pods()
            if selector.items() <= one["spec"]["template"]["metadata"]["labels"].items()
        ]

    def secret(self, name: str, key: str) -> str:
        return str(self.named("Secret", name)["stringData"][key])

    def config(self, name: str) -> Mapping[str, str]:
        """The content of a ConfigMap; empty if another program makes it."""
        found = [
            manifest["data"]
            for manifest in self.of_kind("ConfigMap")
            if manifest["metadata"]["name"] == name
        ]
        return found[0] if found else {}

    def parts(self) -> Iterator[tuple[Document, Document, Part]]:
        """Each container with our image: the pod's spec, the container, and what it runs."""
        for _, pod in self.pods():
            for container in containers(pod):
                if re.fullmatch(r"(.*/)?pdp:.*", container["image"]):
                    yield pod, container, self._part(pod, container)

    def _part(self, pod: Document, container: Document) -> Part:
        environment = {}
        for variable in container.get("env", ()):
            source = variable.get("valueFrom", {}).get("secretKeyRef")
            value = self.secret(source["name"], source["key"]) if source else variable["value"]
            environment[variable["name"]] = value
        files = {}
        volumes = {volume["name"]: volume for volume in pod.get("volumes", ())}
        for mount in container.get("volumeMounts", ()):
            source = volumes.get(mount["name"], {}).get("configMap")
            if source:
                for name, text in self.config(source["name"]).items():
                    files[f"{mount['mountPath']}/{name}"] = text
        assert "command" not in container, "the image's entrypoint is `pdp`"
        return Part(container["name"], container["args"], environment, files)


def containers(pod: Document) -> list[Document]:
    return [*pod.get("initContainers", ()), *pod["containers"]]


def kustomized(directory: Path) -> Cluster:
    """The objects that `kubectl apply -k` sends, except for the names of generated ConfigMaps."""
    (kustomization,) = documents(directory / "kustomization.yaml")
    objects = [
        document for name in kustomization["resources"] for document in documents(directory / name)
    ]
    for generated in kustomization["configMapGenerator"]:
        data = {name: (directory / name).read_text() for name in generated["files"]}
        objects.append(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": generated["name"]},
                "data": data,
            }
        )
    for manifest in objects:
        if manifest["kind"] != "Namespace":
            manifest["metadata"].setdefault("namespace", kustomization["namespace"])
    return Cluster(objects)


def secret_values(objects: Sequence[Document]) -> Iterator[str]:
    for manifest in objects:
        yield from manifest.get("stringData", {}).values()
        yield from (base64.b64decode(value).decode() for value in manifest.get("data", {}).values())
