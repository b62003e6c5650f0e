"""Signing in and out.

A session begins with a session token of Clerk that the browser sends as a cookie of its own, or
with a one-time link, and only if the user has `console:view`.
"""

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from pdp.console.cookies import Cookies
from pdp.console.forms import proof_of
from pdp.console.parts import CALLER, VIEW, ConsoleParts, Shown, question_of
from pdp.console.rendering import address
from pdp.console.sessions import SESSION_SECONDS, begin_session, end_session
from pdp.facts.store.console_secrets import ConsoleSecrets, SecretKind
from pdp.model import (
    NO_ATTRIBUTES,
    Actor,
    DenialKind,
    Effect,
    HttpRequest,
    Question,
    Reason,
    VerifiedToken,
)
from pdp.ruling import Ruling

LINK_SECONDS: Final = 5 * 60.0
SIGN_IN_CALLER: Final = "pdp:sign-in"
"""Has its own share of the audit log: forged tokens do not use up that of the pages."""
_PATH: Final = re.compile(r"/(?:[A-Za-z0-9_~.-][A-Za-z0-9_~.%/-]*)?(?:\?[A-Za-z0-9_~.%=&+*-]*)?")
_PATH_CHARACTERS_MAX: Final = 1024

Refusal = tuple[int, str, str]
"""Status, title and text of a page."""


def sign_in_link(
    store: ConsoleSecrets, origin: str, user_id: str, organization_id: str | None = None
) -> str:
    """An address that signs a user in, once and within LINK_SECONDS. Raises DatabaseUnavailable.

    Args:
        store: Keeps the hash of its secret.
        origin: The console.
        user_id: The user.
        organization_id: The organization in which they act; None: none.
    """
    content = {"user_id": user_id, "organization_id": organization_id}
    secret = store.create(SecretKind.LINK, content, LINK_SECONDS)
    return f"{origin}{SignIn.PATH}?link={secret}"


class SignIn:
    """Begins and ends sessions."""

    PATH: Final = "/sign-in"
    OUT: Final = "/sign-out"

    def __init__(self, parts: ConsoleParts, cookies: Cookies) -> None:
        self._parts = parts
        self._cookies = cookies

    async def show(self, request: Request, secret: str) -> tuple[Shown, str]:
        """The page, and the secret for the cookie that its form is bound to."""
        secret = secret or secrets.token_urlsafe()
        link = request.query_params.get("link", "")
        linked = await self._parts.blocking(
            lambda: self._parts.secrets.read(SecretKind.LINK, link) if link else None
        )
        back = _safe(request.query_params.get("next", ""))
        outside = self._parts.sign_in_url
        if outside is not None:
            here = quote(self._parts.origin + address(self.PATH, next=back), safe="")
            outside += f"?redirect_url={here}"
        values = {
            "proof": proof_of(secret),
            "link": link if linked is not None else "",
            "link_is_over": bool(link) and linked is None,
            "linked_user": "" if linked is None else linked["user_id"],
            "has_token": bool(request.cookies.get(self._parts.session_cookie)),
            "outside": outside,
            "next": back,
        }
        return Shown("sign_in.html", values), secret

    async def begin(self, request: Request, form: Mapping[str, str]) -> Response | Refusal:
        """Begins a session, or refuses."""
        if form.get("link"):
            found = await self._of_link(form["link"])
        else:
            found = await self._of_token(request.cookies.get(self._parts.session_cookie, ""))
        if not isinstance(found, Entry):
            return found
        now = self._parts.clock()
        secret = await self._parts.blocking(
            lambda: begin_session(self._parts.secrets, found.token, found.organization, now)
        )
        response = RedirectResponse(_safe(form.get("next", "")), 303)
        self._cookies.set(response, secret)
        return response

    async def end(self, secret: str) -> Response:
        """Ends a session."""
        await self._parts.blocking(lambda: end_session(self._parts.secrets, secret))
        response = RedirectResponse(self.PATH, 303)
        self._cookies.delete(response)
        return response

    async def _of_token(self, token_text: str) -> "Entry | Refusal":
        if not token_text:
            text = "The browser sent no session token. Sign in to the application first."
            return 401, "You are not signed in", text
        authorizer = self._parts.authorizer
        return await _admit(
            lambda question: authorizer.rule(token_text, [question], SIGN_IN_CALLER)
        )

    async def _of_link(self, link: str) -> "Entry | Refusal":
        store, blocking = self._parts.secrets, self._parts.blocking
        content = await blocking(lambda: store.read(SecretKind.LINK, link))
        if content is None:
            return _OVER
        # A session of its own, which can be revoked as one of Clerk's.
        session_id = f"console_{secrets.token_hex(8)}"
        actor = Actor(content["user_id"], session_id, content.get("organization_id"))
        expires_at = self._parts.clock() + SESSION_SECONDS
        token = VerifiedToken(actor, "", "", expires_at, NO_ATTRIBUTES)
        request = HttpRequest("POST", self.PATH, {})
        authorizer = self._parts.authorizer
        found = await _admit(
            lambda question: authorizer.rule_session(token, question, CALLER, request)
        )
        # Only now, so that an error above does not use it up. Of two uses one gets it.
        if await blocking(lambda: store.take(SecretKind.LINK, link)) is None:
            return _OVER
        return found


class Entry(NamedTuple):
    """Somebody who may use the console."""

    token: VerifiedToken
    organization: str | None
    """The only organization that they may see; None: all of them."""


async def _admit(rule: Callable[[Question], Awaitable[Ruling]]) -> Entry | Refusal:
    """Asks for the view of everything, and if that is refused for that of the active
    organization."""
    organization = None
    ruling = await rule(question_of(VIEW, _PAGE, None))
    token, (decision,) = ruling.token, ruling.decisions
    active = token.actor.organization_id if isinstance(token, VerifiedToken) else None
    if decision.reason.denial_kind is DenialKind.FORBIDDEN and active is not None:
        organization = active
        ruling = await rule(question_of(VIEW, _PAGE, organization))
        token, (decision,) = ruling.token, ruling.decisions
    if decision.effect is Effect.ALLOW and isinstance(token, VerifiedToken):
        return Entry(token, organization)
    return _refusal(decision.reason, ruling.decision_ids[0])


_OVER: Final = (
    401,
    "This link does not sign in",
    "It was used, or it is older than five minutes. Make another one.",
)
_PAGE: Final = "sign-in"


def _refusal(reason: Reason, decision_id: str) -> Refusal:
    unauthenticated = reason.denial_kind is DenialKind.UNAUTHENTICATED
    text = f"{reason.value} {reason.name} ({VIEW}). Logged as {decision_id}."
    return 401 if unauthenticated else 403, "You may not use this console", text


def path_of(request: Request) -> str:
    """The path and parameters of a request."""
    query = request.url.query
    return request.url.path + (f"?{query}" if query else "")


def _safe(path: str) -> str:
    """A path of this console to continue at; `/` if it could be another address."""
    if len(path) > _PATH_CHARACTERS_MAX or not _PATH.fullmatch(path):
        return "/"
    return path
