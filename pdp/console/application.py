"""The ASGI application of the console: for each request its host, session and permission."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pdp.console.cookies import Cookies
from pdp.console.forms import PROOF, comes_from, proof_of, proves, read_form
from pdp.console.pages import MENU, MENU_OF_ORGANIZATION, PAGES
from pdp.console.parts import CALLER, ConsoleParts, Page, Shown, Visit, question_of
from pdp.console.rendering import STATIC, address, asset, render
from pdp.console.sessions import find_session
from pdp.console.sign_in import SignIn, path_of
from pdp.errors import (
    AuditUnavailable,
    CallerNotAllowed,
    InvalidRequest,
    NotFound,
    PdpError,
    RequestError,
    ShareExceeded,
    Unavailable,
)
from pdp.model import Decision, DenialKind, Effect, HttpRequest

log = structlog.get_logger("pdp.console")

REQUESTS_MAX: Final = 32
"""Requests in progress; more are refused with 503."""
WORKING_MAX: Final = 4
"""Pages that are made at the same time: Check shares the pool and the database with them."""
ATTEMPTS_MAX: Final = 8
"""Of a request whose use cannot be logged; each fails within 250 ms."""
STATIC_SECONDS: Final = 7 * 24 * 3600

HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    # Not no-referrer, with which a browser sends `Origin: null` from our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
}


class Refused(Exception):
    """A request that is answered with a short page."""

    def __init__(self, status: int, title: str, text: str) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.text = text


def console_application(parts: ConsoleParts) -> ASGIApp:
    """Creates the application."""
    return _Secured(_Console(parts).application, parts.origin)


class _Console:
    """Answers requests. Keeps only the number of those in progress."""

    def __init__(self, parts: ConsoleParts) -> None:
        self._parts = parts
        self._cookies = Cookies(parts.origin)
        self._sign_in = SignIn(parts, self._cookies)
        self._requests = 0
        self._working = asyncio.Semaphore(WORKING_MAX)
        self.application = Starlette(
            routes=[
                Route(asset(name), self._static(name), methods=["GET"])
                for name in ("console.css", "icon.svg")
            ]
            + [Route(SignIn.PATH, self._bounded(self._sign), methods=["GET", "POST"])]
            + [Route(SignIn.OUT, self._bounded(self._sign_out), methods=["POST"])]
            + [
                Route(
                    page.path,
                    self._bounded(self._page(page)),
                    methods=list(page.methods),
                )
                for page in PAGES
            ],
            exception_handlers={404: self._not_found, 405: self._not_found},
        )

    # --- handlers ---------------------------------------------------------------------------------

    def _page(self, page: Page) -> Any:
        async def answer(request: Request) -> Response:
            secret = self._cookies.secret(request)
            session = await self._parts.blocking(lambda: find_session(self._parts.secrets, secret))
            if session is None:
                return self._to_sign_in(request)
            form: Mapping[str, str] = {}
            if request.method == "POST":
                form = self._form(request, secret)
            token = session.token_at(self._parts.clock())
            # A page that shows more than one organization is refused by the decision itself.
            organization = session.organization if page.of_organization else None
            ruling = await self._parts.authorizer.rule_session(
                token,
                question_of(page.permission, page.name, organization),
                CALLER,
                HttpRequest(request.method, request.url.path, {}),
            )
            (decision,), (decision_id,) = ruling.decisions, ruling.decision_ids
            if decision.effect is not Effect.ALLOW:
                return self._denied(request, decision, decision_id, page)
            visit = Visit(token, organization, request.query_params, form)
            shown = await page.show(self._parts, visit)
            if isinstance(shown, Response):
                return shown
            values = {
                "page": page,
                "menu": MENU if session.organization is None else MENU_OF_ORGANIZATION,
                "limited": organization,
                "user_id": token.actor.user_id,
                "proof": proof_of(secret),
                **shown.values,
            }
            return await self._html(shown._replace(values=values))

        return answer

    def _denied(
        self, request: Request, decision: Decision, decision_id: str, page: Page
    ) -> Response:
        reason = decision.reason
        if reason.denial_kind is DenialKind.UNAUTHENTICATED:
            return self._to_sign_in(request)
        text = f"{reason.value} {reason.name} ({page.permission}). Logged as {decision_id}."
        raise Refused(403, "You may not see this page", text)

    async def _sign(self, request: Request) -> Response:
        secret = self._cookies.secret(request)
        if request.method == "POST":
            form = self._form(request, secret)
            answered = await self._sign_in.begin(request, form)
            if isinstance(answered, Response):
                return answered
            raise Refused(*answered)
        shown, secret = await self._sign_in.show(request, secret)
        response = await self._html(shown)
        self._cookies.set(response, secret)
        return response

    async def _sign_out(self, request: Request) -> Response:
        secret = self._cookies.secret(request)
        self._form(request, secret)
        return await self._sign_in.end(secret)

    def _form(self, request: Request, secret: str) -> Mapping[str, str]:
        """The fields of a form of our own page."""
        form: Mapping[str, str] = request.state.form
        if not comes_from(self._parts.origin, request) or not proves(form, secret):
            text = "The form was not sent by a page of this console, or its session has ended."
            raise Refused(403, "This form is not accepted", text)
        return {name: value for name, value in form.items() if name != PROOF}

    def _to_sign_in(self, request: Request) -> Response:
        """A form that was filled in is lost: it must not be sent with another session."""
        back = path_of(request) if request.method != "POST" else "/"
        return RedirectResponse(address(SignIn.PATH, next=back), 303)

    async def _html(self, shown: Shown, status: int = 200) -> Response:
        values = {"menu": MENU, "user_id": None, "page": None, "proof": "", "limited": None}
        values |= shown.values
        text = await self._parts.blocking(lambda: render(shown.template, values))
        response = HTMLResponse(text, status)
        if shown.refresh_seconds is not None:
            response.headers["refresh"] = str(shown.refresh_seconds)
        return response

    async def _message(self, status: int, title: str, text: str) -> Response:
        return await self._html(Shown("message.html", {"title": title, "text": text}), status)

    async def _not_found(self, _: Request, __: Exception) -> Response:
        return await self._message(404, "There is no such page", "Use the menu above.")

    def _static(self, name: str) -> Any:
        async def answer(_: Request) -> Response:
            caching = {"cache-control": f"public, max-age={STATIC_SECONDS}, immutable"}
            return FileResponse(STATIC / name, headers=caching)

        return answer

    # --- what holds for all of them ---------------------------------------------------------------

    def _bounded(self, handler: Any) -> Any:
        """The handler, for a bounded number of requests; errors become pages."""

        async def answer(request: Request) -> Response:
            if self._requests >= REQUESTS_MAX:
                return await self._message(503, "The console is busy", "Try again in a moment.")
            self._requests += 1
            try:
                if request.method == "POST":  # a slow one occupies no place of those that work
                    request.state.form = await read_form(request)
                async with self._working:
                    return await _patiently(lambda: handler(request))
            except Refused as refused:
                return await self._message(refused.status, refused.title, refused.text)
            except PdpError as error:
                return await self._message(*_error_page(error))
            except Exception:  # a bug: its text stays in the log
                log.exception("console_failed", path=request.url.path)
                return await self._message(500, "Internal error", "The log of the process has it.")
            finally:
                self._requests -= 1

        return answer


async def _patiently(answer: Callable[[], Awaitable[Response]]) -> Response:
    """Answers again if the use could not be logged in time: a person would only press reload. All
    handlers allow that, since they change something only after it is logged."""
    for _ in range(ATTEMPTS_MAX - 1):
        with contextlib.suppress(AuditUnavailable):
            return await answer()
    return await answer()


def _error_page(error: PdpError) -> tuple[int, str, str]:
    if isinstance(error, NotFound):
        return 404, "Not found", error.message
    if isinstance(error, InvalidRequest):
        return 400, "This request is not valid", error.message
    if isinstance(error, CallerNotAllowed):
        return 403, "You may not do this", error.message
    if isinstance(error, RequestError):
        return 400, "This request cannot be answered", error.message
    if isinstance(error, Unavailable | ShareExceeded):
        return 503, "There is no answer now", error.message
    return 503, "There is no answer", error.message


class _Secured:
    """Refuses other hosts, and adds the headers that each response has."""

    def __init__(self, application: ASGIApp, origin: str) -> None:
        self._application = application
        self._host = origin.partition("://")[2]
        self._secure = origin.startswith("https:")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("cache-control", "no-store")
                if self._secure:
                    headers["strict-transport-security"] = "max-age=31536000"
            await send(message)

        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if hosts != [self._host.encode()]:
            # Also DNS rebinding: a page of another name that has our address.
            await Response("This host has no console.\n", 421)(scope, receive, send_secured)
            return
        await self._application(scope, receive, send_secured)
