"""`python -m tests.console.screenshots [FOLDER]`: the pictures of docs/console.md, or with a folder
all pages, wide and narrow, light and dark."""

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from examples.company import ANALYST, company
from tests.kit.console import Console, running_console
from tests.kit.server import token_of

DOCS = Path(__file__).parents[2] / "docs"
PATHS = {
    "now": "/?span=24h",
    "decisions": "/decisions?decision=deny",
    "people": "/people",
    "user": "/user?id=user_harbor_2&organization=org_harbor&type=invoice"
    "&resource=harbor-2026001&permission=invoice:edit",
    "role": "/role?name=APPROVER",
    "resource": "/resource?type=invoice&id=harbor-2026001&permission=invoice:edit",
    "policy": "/policy",
    "try": "/try",
}


def opened(browser: Browser, console: Console, width: int, scheme: str) -> Page:
    """A page of a browser that has signed in."""
    context = browser.new_context(
        base_url=console.origin, viewport={"width": width, "height": 800}, color_scheme=scheme
    )
    cookie = {"name": "__session", "value": token_of(ANALYST), "url": console.origin}
    context.add_cookies([cookie])
    page = context.new_page()
    page.goto("/")
    page.get_by_role("button", name="Continue").click()
    return page


def shoot(browser: Browser, console: Console, folder: Path | None) -> None:
    if folder is None:
        page = opened(browser, console, 1280, "light")
        page.goto(PATHS["now"])
        page.screenshot(path=DOCS / "console-now.png")
        page.goto("/decisions?reason=CONDITION_NOT_MET&permission=invoice:delete")
        page.locator("tbody a").first.click()
        page.screenshot(path=DOCS / "console-decision.png", full_page=True)
        return
    for width in (1280, 390):
        for scheme in ("light", "dark"):
            page = opened(browser, console, width, scheme)
            for name, path in PATHS.items():
                page.goto(path)
                page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=True)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        made = company()
        with running_console(Path(directory), 4_000, made, 22.0) as console:
            shoot(browser, console, folder)
        browser.close()


if __name__ == "__main__":
    main()
