"""One server with a console, and one Chromium."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.kit.console import Console, running_console


@pytest.fixture(scope="package")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    with running_console(tmp_path_factory.mktemp("console")) as running:
        yield running


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """A Chromium of the system. Without one its tests are skipped; PDP_BROWSER=require (CI) makes
    that a failure."""
    path = os.environ.get("PDP_CHROMIUM") or shutil.which("chromium")
    if path is None:
        assert os.environ.get("PDP_BROWSER") != "require", "there is no chromium on the PATH"
        pytest.skip("there is no Chromium: install Debian's chromium, or set PDP_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()
