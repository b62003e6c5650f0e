"""The documentation as a site: `make docs` builds it and fails on any warning, such as a dead link.

The sources start at the root of the repository, so a link that works in the repository works here.
"""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]

project = "pdp"
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
copyright = "the authors of pdp, MIT license"  # noqa: A001 - Sphinx's name

root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "docs/**.md",
    "clients/*/README.md",
    "examples/*/README.md",
]
exclude_patterns = ["build", ".venv", "**/node_modules"]
extensions = ["myst_parser"]
myst_heading_anchors = 4  # the anchors that a Git host gives to headings
suppress_warnings = [
    "misc.highlighting_failure"
]  # Pygments stumbles over `[course:*]`, which is YAML

html_theme = "furo"
html_title = f"pdp {version}"
html_extra_path = ["_extra"]
html_copy_source = html_show_sourcelink = html_show_sphinx = False
