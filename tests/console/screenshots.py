"""`python -m tests.console.screenshots [FOLDER]`: the pictures of docs/console.md, or with a folder
all pages, wide and narrow, light and dark."""

import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from examples.company import ANALYST, company, later
from pdp.model import Grant, InOrganization, ToUser
from tests.kit.console import Console, running_console
from tests.kit.server import token_of

AUDITOR = "user_harbor_1"
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
    "reviews": "/reviews",
    "who": "/review?list=who&permission=invoice:edit&resource=invoice:harbor-2026001",
    "unused": "/review?list=unused",
    "first-time": "/review?list=first-time",
    "changes": "/changes?kind=rule",
    "diff": "/diff?from=1&to=2",
}


def opened(
    browser: Browser,
    console: Console,
    width: int,
    scheme: str,
    *,
    user: str = ANALYST,
    organization: str | None = None,
) -> Page:
    """A page of a browser that has signed in."""
    context = browser.new_context(
        base_url=console.origin, viewport={"width": width, "height": 800}, color_scheme=scheme
    )
    cookie = {
        "name": "__session",
        "value": token_of(user, organization_id=organization),
        "url": console.origin,
    }
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
            shoot_all(browser, console, folder, width, scheme)


def shoot_all(browser: Browser, console: Console, folder: Path, width: int, scheme: str) -> None:
    page = opened(browser, console, width, scheme)

    def shot(page: Page, name: str) -> None:
        page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=True)

    for name, path in PATHS.items():
        page.goto(path)
        shot(page, name)
    page.goto("/changes?kind=permission")
    page.locator("tbody a").first.click()
    shot(page, "change")
    page.goto("/decisions?caller=pdp:console")
    page.locator("tbody tr").last.get_by_role("link").first.click()
    page.get_by_role("link", name="Proof that").click()
    shot(page, "proof")
    page.goto("/reviews")
    page.get_by_label("Name").fill("Q4 approvers")
    page.get_by_label("Only grants of the role").select_option("APPROVER")
    page.get_by_role("button", name="Open").click()
    page.get_by_role("checkbox").first.check()
    page.get_by_label("Reason").fill("Left in May")
    shot(page, "campaign")
    page.get_by_role("button", name="Certify").click()
    shot(page, "campaign-decided")
    page.context.close()
    page = opened(browser, console, width, scheme, user=AUDITOR, organization="org_harbor")
    for name, path in (("now", "/?span=24h"), ("user", "/user?id=user_harbor_2")):
        page.goto(path)
        shot(page, f"tenant-{name}")
    page.context.close()


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        made = company()
        grant = Grant("tenant", "TENANT_AUDITOR", ToUser(AUDITOR), InOrganization("org_harbor"))
        document = replace(made.document, grants=(*made.document.grants, grant))
        with running_console(
            Path(directory), 4_000, replace(made, document=document), 22.0, policy_age=23 * 3600.0
        ) as console:
            text = later(console.company)
            (console.server.directory / "later.yaml").write_text(text, encoding="utf-8")
            console.server.pdp("apply", "later.yaml", "--reason", "OPS-12: credits need approval")
            shoot(browser, console, folder)
        browser.close()


if __name__ == "__main__":
    main()
