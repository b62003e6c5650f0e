"""The documents list exactly what exists: settings, metrics, commands, make targets."""

import itertools
import json
import re
import shlex
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import typer
from prometheus_client.parser import text_string_to_metric_families

from pdp.cli import app
from pdp.facts import FlipGroup
from pdp.model import Decision, Effect, Reason
from pdp.process.metrics import Metrics
from pdp.settings import ClerkSettings, ForwardSettings, Settings, SidecarSettings
from pdp.settings.forward import (
    FileDestinationSettings,
    HttpDestinationSettings,
    SyslogDestinationSettings,
)

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def rows(page: str, heading: str) -> list[str]:
    """The first column of the table under a heading of a page."""
    text = (DOCS / page).read_text()
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE)


def gauges_in(files: str) -> set[str]:
    """The gauges that these files declare."""
    source = "".join(path.read_text() for path in ROOT.glob(files))
    return set(re.findall(r'"(pdp_[a-z_]+)": \(', source))


def test_every_setting_is_documented_and_no_other() -> None:
    assert sorted(rows("settings.md", "The table")) == sorted(Settings.model_fields)


def test_every_setting_of_clerk_is_documented_once_and_no_other() -> None:
    page = (DOCS / "clerk.md").read_text()
    tables = re.findall(r"^\| key of `clerk` .*\n\|.*\n((?:\| `.*\n)+)", page, re.MULTILINE)
    keys = [
        key for table in tables for key in re.findall(r"^\| `([a-z_]+)` \|", table, re.MULTILINE)
    ]
    assert sorted(keys) == sorted(ClerkSettings.model_fields)


def test_every_setting_and_metric_of_a_sidecar_is_documented_and_no_other() -> None:
    assert set(rows("sidecar.md", "Settings")) == set(SidecarSettings.model_fields)
    metrics = set(rows("sidecar.md", "Metrics"))
    assert metrics == gauges_in("pdp/sidecar/*.py") - set(rows("metrics.md", "Metrics"))


def test_every_setting_and_metric_of_the_forwarder_is_documented_and_no_other() -> None:
    for heading, settings in (
        ("## Settings", ForwardSettings),
        ("### `file`", FileDestinationSettings),
        ("### `http`", HttpDestinationSettings),
        ("### `syslog`", SyslogDestinationSettings),
    ):
        text = (DOCS / "siem.md").read_text().partition(f"\n{heading}\n")[2]
        table = text.partition("\n#")[0]
        keys = re.findall(r"^\| `([a-z_]+)` \|", table, re.MULTILINE)
        assert sorted(keys) == sorted(settings.model_fields)
    assert set(rows("siem.md", "Metrics")) == gauges_in("pdp/siem/*.py")


def test_everything_is_where_the_architecture_says() -> None:
    page = (DOCS / "architecture.md").read_text()
    section = page.partition("\n## Where to find things\n")[2].partition("\n## ")[0]
    places = re.findall(r"^\| [^|]+ \| (.+) \|$", section, re.MULTILINE)[1:]
    assert len(places) > 10
    for place in places:
        paths = re.findall(r"`(\S+\.py)`", place)
        names = re.findall(r"`(\w+)`", place)
        assert paths
        sources = "".join((ROOT / path).read_text() for path in paths)
        for name in names:
            assert re.search(rf"^(class|def) {name}\b|^{name}\b.* =", sources, re.MULTILINE), name


def test_every_metric_is_documented_and_no_other() -> None:
    others = gauges_in("pdp/sidecar/*.py") | gauges_in("pdp/siem/*.py")
    declared = gauges_in("pdp/**/*.py") - others | {"pdp_ready"}
    metrics = Metrics({name: ("", lambda: 0.0) for name in declared})
    metrics.observe_rpc("Check", "OK", 0.001)
    decision = Decision(Effect.DENY, Reason.TOKEN_EXPIRED, too_expensive=("rule",))
    metrics.count_decisions([decision])
    metrics.count_shadow("flipped", FlipGroup("course:view", "deny", "rule", ""))
    metrics.count_webhook("user.updated", "applied")
    metrics.set_certificates({"server": 0.0})
    exposed = {
        sample.name.removesuffix("_count")
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
        if not sample.name.endswith(("_bucket", "_sum", "_created"))
    }
    assert sorted(rows("metrics.md", "Metrics")) == sorted(exposed)


def test_the_demo_installs_what_it_runs_and_the_tests_add_the_tools(tmp_path: Path) -> None:
    def commands(target: str) -> str:
        done = subprocess.run(
            ["make", "--dry-run", target, f"VENV={tmp_path / 'venv'}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    demo, tests = commands("demo"), commands("test-python")
    assert "-r requirements/runtime.txt" in demo
    assert "requirements/dev.txt" not in demo
    assert demo.index("Installing what the service needs") < demo.index("examples.demo")
    assert tests.index("-r requirements/runtime.txt") < tests.index("-r requirements/dev.txt")


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: ([a-z-]+)$", makefile, re.MULTILINE))
    # Within another make it would also say where it is.
    command = ["make", "--no-print-directory", "help"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert {line.split()[0] for line in said.stdout.splitlines() if line.strip()} == targets


def test_ci_runs_make_check_and_check_runs_the_test_command_of_the_readme() -> None:
    assert "make check" in (ROOT / ".ci" / "run").read_text()
    check = re.search(r"^check: (.*?) ##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert check is not None
    assert "test" in check[1].split()
    assert "make test" in (ROOT / "README.md").read_text()


def test_all_packages_have_the_version_of_the_newest_release() -> None:
    def project(path: str) -> str:
        text: str = tomllib.loads((ROOT / path).read_text())["project"]["version"]
        return text

    def package(path: str) -> str:
        text: str = json.loads((ROOT / path).read_text())["version"]
        return text

    changes = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (.+)$", changes, re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    release = re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d", headings[1])
    assert release is not None
    manifests = ("deploy/kubernetes/kustomization.yaml", "docker-compose.yaml")
    images = [
        re.findall(r"(?:newTag: |pdp:)(\d\S+)", (ROOT / path).read_text()) for path in manifests
    ]
    assert {
        project("pyproject.toml"),
        project("clients/python/pyproject.toml"),
        package("clients/typescript/package.json"),
        package("clients/typescript/package-lock.json"),
        version("pdp"),
        *itertools.chain(*images),
    } == {release[1]}


def test_the_readme_has_the_figure_of_the_last_bench() -> None:
    page = (DOCS / "performance.md").read_text()
    measured = re.search(r"^\| Check, requests/s, to Cerbos \| ([0-9.]+)x \|", page, re.MULTILINE)
    assert measured is not None
    said = re.search(r"answers ([0-9.]+) times as many questions", (ROOT / "README.md").read_text())
    assert said is not None
    assert float(said[1]) == round(float(measured[1]), 1)


def test_every_package_comes_with_the_license() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert text.startswith("MIT License\n")
    for package in ("clients/python", "clients/typescript", "clients/go"):
        assert (ROOT / package / "LICENSE").read_text() == text
    for name in ("pyproject.toml", "clients/python/pyproject.toml"):
        project = tomllib.loads((ROOT / name).read_text())["project"]
        assert (project["license"], project["license-files"]) == ("MIT", ["LICENSE"])
    for name in ("clients/typescript", "examples/next-courses"):
        assert json.loads((ROOT / name / "package.json").read_text())["license"] == "MIT"
        lock = json.loads((ROOT / name / "package-lock.json").read_text())
        assert lock["packages"][""]["license"] == "MIT"


COMMAND_LINE = re.compile(
    r"(?:^|[`$|;&(] ?)(?:[A-Z_]+=\S+ )*pdp ([a-z-][^`\n|;&#<>]*)", re.MULTILINE
)


def unknown_words(root: Any, line: str) -> list[str]:
    """The commands and options of a command line that the program does not have."""
    unknown, command = [], root
    words = iter(shlex.split(line))
    for word in words:
        option = re.fullmatch(r"(--?[A-Za-z][A-Za-z-]*)(=.*)?", word)
        if option is not None:
            known = {name for parameter in command.params for name in parameter.opts}
            unknown += [word] if option[1] not in {*known, "--help", "-h"} else []
            if command is root and option[2] is None:
                next(words, None)  # the value of an option before the command
        elif word in getattr(command, "commands", {}):
            command = command.commands[word]
        elif hasattr(command, "commands"):
            return [*unknown, word] if re.fullmatch("[a-z-]+", word) else unknown
    return unknown


def test_the_command_lines_of_the_documentation_name_what_the_program_has() -> None:
    root = typer.main.get_command(app)
    assert unknown_words(root, "audit list --no-such --json") == ["--no-such"]
    assert unknown_words(root, "audit lists --json") == ["lists"]
    pages = [*ROOT.glob("*.md"), *DOCS.glob("*.md"), *ROOT.glob("clients/*/README.md")]
    lines = {
        (page.name, found[1])
        for page in pages
        for found in COMMAND_LINE.finditer(page.read_text().replace("\\\n", " "))
    }
    assert len(lines) > 200
    wrong = {line: unknown for line in sorted(lines) if (unknown := unknown_words(root, line[1]))}
    assert not wrong
