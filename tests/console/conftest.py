"""One server with a console, and one Chromium."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.kit.console import Console, running_console
from tests.kit.emptied import EmptiedDatabase


@pytest.fixture(scope="package")
def console(
    tmp_path_factory: pytest.TempPathFactory, postgresql_server: str, postgresql_template: str
) -> Iterator[Console]:
    """On PostgreSQL. The security team's questions are asked on SQLite (tests/e2e)."""
    database = EmptiedDatabase(postgresql_server, postgresql_template)
    directory = tmp_path_factory.mktemp("console")
    with running_console(directory, DATABASE_URL=database.url()) as running:
        yield running
    database.drop()


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """A Chromium of the system. Without one its tests are skipped; PDP_BROWSER=require (CI) makes
    that a failure."""
    # The headless shell draws without windows: two thirds of the processor time.
    found = filter(None, map(shutil.which, ("chromium-headless-shell", "chromium")))
    path = os.environ.get("PDP_CHROMIUM") or next(found, None)
    if path is None:
        assert os.environ.get("PDP_BROWSER") != "require", "there is no chromium on the PATH"
        pytest.skip(
            "there is no Chromium: install Debian's chromium-headless-shell, or set PDP_CHROMIUM"
        )
    with sync_playwright() as playwright:
        # It draws by itself, instead of emulating a graphics card in a process of its own.
        arguments = ["--disable-gpu", "--in-process-gpu", "--disable-software-rasterizer"]
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()
