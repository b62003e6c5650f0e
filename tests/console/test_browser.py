"""The console in a real Chromium, with and without JavaScript."""

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from cryptography import x509
from pdpapi.v1.administration_service_pb2 import (
    CreateGrantRequest,
    CreateRoleRequest,
    Grant,
    Role,
)
from playwright.sync_api import Browser, Page, ViewportSize, expect

from examples.company import ANALYST
from tests.kit import soak
from tests.kit.console import (
    AUDITOR,
    HOSTILE_DECISION,
    HOSTILE_RESOURCE,
    HOSTILE_USER,
    Console,
    running_console,
)
from tests.kit.ports import free_port
from tests.kit.server import token_of
from tests.kit.wire.tls import Authority

AXE = Path(__file__).parent / "browser" / "node_modules" / "axe-core" / "axe.min.js"
expect.set_options(timeout=30_000)
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


@dataclass
class Seen:
    """What a browser reports of a visit."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    """Messages of the browser's console, errors of scripts, and dialogs."""


@contextmanager
def visiting(chromium: Browser, console: Console, **options) -> Iterator[Seen]:
    """A browser of its own; afterwards nothing of another origin was asked for, and the browser
    has not complained about anything, violations of the policy for content among them."""
    context = chromium.new_context(base_url=console.origin, **options)
    seen = Seen(context.new_page())
    seen.page.on("request", lambda request: seen.requests.append(request.url))
    seen.page.on("console", lambda message: seen.complaints.append(message.text))
    seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    seen.page.on("dialog", lambda dialog: (seen.complaints.append("dialog"), dialog.dismiss()))
    try:
        yield seen
        assert [one for one in seen.requests if not one.startswith(f"{console.origin}/")] == []
        assert [one for one in seen.complaints if "the server responded with" not in one] == []
    finally:
        context.close()


def sign_in(page: Page, console: Console, user: str = ANALYST, **token: str) -> None:
    page.context.add_cookies(
        [{"name": "__session", "value": token_of(user, **token), "url": console.origin}]
    )
    page.goto("/")
    page.get_by_role("button", name="Continue").click()


SCRIPTS = pytest.mark.parametrize(
    "scripts",
    # Without scripts in the pages nothing depends on it.
    [False, *([True] if soak.SOAK else [])],
    ids=lambda scripts: "with JavaScript" if scripts else "without JavaScript",
)


@pytest.mark.soak
@SCRIPTS
def test_an_analyst_finds_the_reason_of_a_denial(
    chromium: Browser, console: Console, scripts: bool
):
    with visiting(chromium, console, java_script_enabled=scripts) as seen:
        page = seen.page
        page.goto("/")
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in to the console")
        sign_in(page, console)
        expect(page.get_by_role("heading", level=1)).to_contain_text("Decisions in the last")
        page.get_by_role("link", name="6 hours").click()
        page.get_by_role("link", name="WRONG_ORGANIZATION").last.click()
        expect(page.get_by_label("Reason")).to_have_value("WRONG_ORGANIZATION")
        page.get_by_label("User").fill("user_harbor_3")
        page.get_by_role("button", name="Search").click()
        page.locator("tbody tr").first.get_by_role("link").first.click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("deny invoice:view")
        expect(
            page.get_by_text("The resource belongs to another organization").first
        ).to_be_visible()
        expect(page.locator(".tree")).to_contain_text("tenant:")
        page.get_by_role("link", name="user_harbor_3").first.click()
        page.get_by_label("Active organization").select_option("org_harbor")
        page.get_by_label("Resource type").fill("invoice")
        page.get_by_label("Resource id").fill(console.company.invoices["org_harbor"][0])
        page.get_by_label("Explain a permission").select_option("invoice:edit")
        page.get_by_role("button", name="Ask").click()
        expect(page.locator(".marks")).to_contain_text("allow invoice:view")
        page.get_by_role("link", name="ACCOUNTANT").first.click()
        expect(page.get_by_role("heading", level=1)).to_have_text("ACCOUNTANT")
        page.get_by_role("link", name="Try it").click()
        page.get_by_label("User", exact=True).fill("user_eve")
        page.get_by_role("button", name="Ask").click()
        expect(page.locator(".answer")).to_contain_text("ACTOR_UNKNOWN")
        expect(page.get_by_label("User", exact=True)).to_have_value("user_eve")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in to the console")
        page.goto("/decisions")
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in to the console")


def open_campaign(page: Page, role: str) -> None:
    page.goto("/reviews")
    page.get_by_label("Name").fill("Grants of today")
    page.get_by_label("Only grants of the role").select_option(role)
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Grants of today")


@pytest.mark.soak
@SCRIPTS
def test_a_reviewer_finds_grants_revokes_one_and_sees_who_did(
    chromium: Browser, console: Console, scripts: bool
):
    role = f"BROWSER_{scripts}"  # nobody else's
    administration = console.stubs.administration
    administration.CreateRole(CreateRoleRequest(role=Role(name=role)), timeout=5)
    grant = Grant(id=f"grant-{role}", role=role, user_id="user_viewer")
    administration.CreateGrant(CreateGrantRequest(grant=grant), timeout=5)
    with visiting(chromium, console, java_script_enabled=scripts) as seen:
        page = seen.page
        sign_in(page, console)
        page.get_by_role("link", name="Reviews").click()
        page.get_by_role("link", name="Which grants cross tenants?").click()
        row = page.get_by_role("row").filter(has_text=grant.id)
        expect(row).to_contain_text("user user_viewer")
        with page.expect_download() as download:
            page.get_by_role("link", name="Download all as CSV").click()
        assert grant.id in download.value.path().read_text(encoding="utf-8")
        open_campaign(page, role)
        page.get_by_role("checkbox").focus()
        page.keyboard.press("Space")
        page.get_by_label("Reason").fill("left")
        page.get_by_role("button", name="Revoke").click()
        expect(page.get_by_role("row").last).to_contain_text(f"revoked by console:{ANALYST}")
        with page.expect_download() as download:
            page.get_by_role("link", name="Download the signed report").click()
        assert download.value.suggested_filename.endswith(".zip")
        page.get_by_role("link", name="Changes", exact=True).click()
        page.get_by_label("Kind").select_option("grant")
        page.get_by_label("By").fill(f"console:{ANALYST}")
        page.get_by_role("button", name="Search").click()
        page.get_by_role("row").filter(has_text=grant.id).get_by_role("link").click()
        expect(page.get_by_role("heading", level=1)).to_have_text(f"delete grant {grant.id}")
        page.get_by_role("link", name="what else it changed").click()
        expect(page.locator(".changes")).to_contain_text(f"delete grant {grant.id}")
        expect(page.locator(".changes")).to_contain_text("left")


def test_over_tls_the_cookie_is_of_this_host_alone(chromium: Browser, tmp_path: Path):
    """And over HTTP/2, which has no header `host` of its own."""
    key, certificate = Authority("console").issue(x509.DNSName("localhost"))
    (tmp_path / "tls-key.pem").write_bytes(key)
    (tmp_path / "certificate.pem").write_bytes(certificate)
    port = free_port()
    settings = {
        "listen": f"127.0.0.1:{port}",
        "origin": f"https://localhost:{port}",
        "sign_in_url": "https://app.example.test/sign-in",
        "tls": {
            "certificate_file": str(tmp_path / "certificate.pem"),
            "private_key_file": str(tmp_path / "tls-key.pem"),
        },
    }
    with running_console(tmp_path, 0, CONSOLE=settings) as console:
        console.origin = settings["origin"]
        with visiting(chromium, console, ignore_https_errors=True) as seen:
            page = seen.page
            response = page.goto("/sign-in?next=/policy")
            assert response is not None
            assert "strict-transport-security" in response.headers
            assert page.evaluate("performance.getEntries()[0].nextHopProtocol") == "h2"
            assert page.get_by_role("link", name="Sign in to the application").get_attribute(
                "href"
            ) == (
                "https://app.example.test/sign-in?redirect_url="
                f"https%3A%2F%2Flocalhost%3A{port}%2Fsign-in%3Fnext%3D%252Fpolicy"
            )
            page.goto(console.link())
            page.get_by_role("button", name=f"Sign in as {ANALYST}").click()
            expect(page.get_by_role("heading", level=1)).to_contain_text("Decisions in")
            assert "link=" not in page.url
            (cookie,) = page.context.cookies()
            assert (cookie["name"], cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (
                "__Host-pdp-console",
                True,
                True,
                "Strict",
            )
            page.get_by_role("button", name="Sign out").click()
            expect(page.get_by_role("heading", level=1)).to_have_text("Sign in to the console")


def test_the_pages_are_used_with_the_keyboard(chromium: Browser, console: Console):
    with visiting(chromium, console) as seen:
        page = seen.page
        sign_in(page, console)
        expect(page.get_by_role("heading", level=1)).to_contain_text("Decisions in")
        page.keyboard.press("Tab")
        expect(page.get_by_text("Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        expect(page.locator("main :focus")).to_have_count(1)
        page.get_by_role("link", name="Decisions", exact=True).focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Decisions")


def test_another_site_can_neither_frame_the_console_nor_use_its_forms(
    chromium: Browser, console: Console
):
    context = chromium.new_context()
    page = context.new_page()
    sign_in_page = context.new_page()
    sign_in_page.goto(console.origin)
    context.add_cookies([{"name": "__session", "value": token_of(ANALYST), "url": console.origin}])
    sign_in_page.goto(console.origin)
    sign_in_page.get_by_role("button", name="Continue").click()
    page.route(
        "http://evil.example/**",
        lambda route: route.fulfill(
            content_type="text/html",
            body=f"""<iframe src="{console.origin}/decisions"></iframe>
        <form method="post" action="{console.origin}/sign-out"><button>Win</button></form>""",
        ),
    )
    page.goto("http://evil.example/")
    frame = page.frames[-1]
    assert "Decisions" not in (frame.content() if not frame.url.startswith("http:") else "")
    page.get_by_role("button", name="Win").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("This form is not accepted")
    sign_in_page.reload()
    expect(sign_in_page.get_by_role("button", name="Sign out")).to_be_visible()
    context.close()


def paths(console: Console) -> dict[str, str]:
    """A path of each kind of page, hostile ones among them."""
    from pdp.console.rendering import address

    invoice = console.company.invoices["org_harbor"][0]
    hostile = {"type": HOSTILE_RESOURCE.type, "id": HOSTILE_RESOURCE.id}
    return {
        "now": "/?span=6h",
        "decisions": "/decisions?decision=deny",
        "nothing": "/decisions?user=user_nobody",
        "problem": "/decisions?from=x",
        "people": "/people",
        "user": f"/user?id=user_harbor_1&organization=org_harbor&type=invoice&resource={invoice}"
        "&permission=invoice:approve",
        "hostile user": address("/user", id=HOSTILE_USER),
        "role": "/role?name=APPROVER",
        "hostile role": "/role?name=HOSTILE",
        "resource": f"/resource?type=invoice&id={invoice}&permission=invoice:edit",
        "hostile resource": address("/resource", **hostile, permission="invoice:print"),
        "policy": "/policy",
        "diff": "/diff?from=0&to=1",
        "reviews": "/reviews",
        "who": f"/review?list=who&permission=invoice:edit&resource=invoice:{invoice}",
        "unused": "/review?list=unused",
        "first-time": "/review?list=first-time",
        "changes": "/changes",
        "change": "/change?id=1-1",
        "proof": f"/proof?id={HOSTILE_DECISION}",
        "try": "/try",
        "missing": "/nothing",
    }


def axe_source() -> str:
    if not AXE.is_file():
        assert os.environ.get("PDP_BROWSER") != "require", f"{AXE} is not installed"
        pytest.skip("axe-core is not installed: npm ci in tests/console/browser")
    return AXE.read_text(encoding="utf-8")


def problems_of(page: Page, axe: str) -> list[tuple[str, str]]:
    """What axe finds: the rule and the element. Without `preload` it does not try to read style
    sheets, which the policy for content forbids it."""
    page.evaluate(f"{axe}; null")
    passes, found = page.evaluate(
        """async tags => {
            const result = await axe.run(document, {
                runOnly: {type: "tag", values: tags}, preload: false, resultTypes: ["violations"],
            });
            const found = result.violations.flatMap(rule =>
                rule.nodes.map(node => [rule.id, node.html.slice(0, 200)]));
            return [result.passes.length, found];
        }""",
        WCAG,
    )
    assert passes, "axe looked at nothing"
    return [(rule, element) for rule, element in found]


def test_axe_and_the_browser_do_complain(chromium: Browser, console: Console):
    """Positive control of the other tests."""
    axe = axe_source()
    with visiting(chromium, console) as seen:
        seen.page.goto("/sign-in")
        seen.page.evaluate(
            """document.body.insertAdjacentHTML("beforeend",
            "<img src='/x.png'><p style='color: red'>x</p><img alt='' src='http://x.example/y'>")"""
        )
        assert "image-alt" in {rule for rule, _ in problems_of(seen.page, axe)}
        assert sum("Content Security Policy" in one for one in seen.complaints) >= 2
        seen.complaints.clear()
        seen.requests.clear()


APPEARANCES: Sequence[tuple[int, Literal["light", "dark"]]] = ((1280, "light"), (390, "dark"))
MADE_LIKE_ANOTHER = {
    "nothing", "hostile user", "hostile role", "hostile resource", "unused", "first-time",
    "tenant /decisions", "tenant /people", "tenant /changes",
}  # fmt: skip
"""Pages whose elements axe sees on another page too: it sees them again in `make soak` only."""


@pytest.mark.soak
def test_axe_finds_nothing_and_no_page_is_wider_than_the_window(
    chromium: Browser, console: Console
):
    """At each width. `make test` shows axe half of the pages in one appearance, others in each
    run."""
    for width, scheme in random.sample(APPEARANCES, soak.count(len(APPEARANCES), sample=1)):
        assert faults_of_pages(chromium, console, width, scheme) == {}


def faults_of_pages(
    chromium: Browser, console: Console, width: int, scheme: Literal["light", "dark"]
) -> dict[str, object]:
    """What axe finds on a page of each kind, and the widths that it is wider than."""
    axe = axe_source()
    found: dict[str, object] = {}
    viewport: ViewportSize = {"width": width, "height": 800}
    with visiting(chromium, console, viewport=viewport, color_scheme=scheme) as seen:
        page = seen.page

        def overflows(width: int) -> bool:
            page.set_viewport_size({**viewport, "width": width})
            element = "document.documentElement"
            return bool(page.evaluate(f"{element}.scrollWidth > {element}.clientWidth"))

        def look(name: str) -> None:
            left_out = not soak.SOAK and (name in MADE_LIKE_ANOTHER or random.random() < 0.5)
            problems = [] if left_out else problems_of(page, axe)
            narrow = [width for width, _ in APPEARANCES if overflows(width)]
            page.set_viewport_size(viewport)
            if problems or narrow:
                found[name] = (scheme, problems, narrow)

        page.goto("/sign-in")
        look("sign-in")
        sign_in(page, console)
        for name, path in paths(console).items():
            page.goto(path)
            look(name)
        page.goto("/decisions")
        page.locator("tbody a").first.click()
        look("decision")
        page.goto("/try")
        page.get_by_role("button", name="Ask").click()
        look("answer")
        open_campaign(page, "SUPPORT")
        look("campaign")
        page.get_by_role("button", name="Sign out").click()
        sign_in(page, console, AUDITOR, organization_id="org_meadow")
        for path in ("/", "/decisions", "/people", "/user?id=user_meadow_1", "/changes"):
            page.goto(path)
            look(f"tenant {path}")
        seen.complaints.clear()  # axe reads style sheets, which the policy for content forbids it
    return found
