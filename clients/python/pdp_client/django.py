"""The guard of Django applications.

    # settings.py
    PDP_GUARD = lambda: Guard("dns:///pdp.internal:50051", ...)  # called once, at the first request
    PDP_ROUTES = Routes({"/admin/**": "admin:access", "GET /healthz": PUBLIC})
    MIDDLEWARE = [
        "corsheaders.middleware.CorsMiddleware",  # if there is one: a preflight carries no token
        "pdp_client.django.GuardMiddleware",
        ...,
    ]

    # views.py
    @requires("course:edit", course)  # course(request): the Resource that it is about
    def edit(request, course_id): ...

Lists: `Course.objects.filter(q(plan, Course))`, see `pdp_client.django_orm`.

The actor is `request.actor`. `PDP_SESSION_COOKIE` names another cookie than `__session`.
"""

import functools
import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse
from pdp_routes import Routes

from pdp_client.adapting import (
    ResourceOf,
    answer,
    asgi_token,
    question,
    refused_route,
    routed,
    sent_by_asgi,
    sent_by_wsgi,
    wsgi_token,
)
from pdp_client.aio import AsyncGuard
from pdp_client.django_orm import q, register, resource_of
from pdp_client.errors import GuardError
from pdp_client.guard import Guard
from pdp_client.headers import SESSION_COOKIE
from pdp_client.values import Question

__all__ = ["GuardMiddleware", "q", "register", "requires", "resource_of"]

View = TypeVar("View", bound=Callable[..., Any])

log = logging.getLogger("pdp_client")

_CORS = "corsheaders.middleware.CorsMiddleware"
_GUARD = f"{__name__}.GuardMiddleware"
_making = threading.Lock()


def requires(permission: str, resource: ResourceOf | None = None) -> Callable[[View], View]:
    """A view for allowed actors only: a function or a method of a view class, async or not.
    `resource` receives the request."""

    def decorate(view: View) -> View:
        if isinstance(view, type):
            raise TypeError("decorate the methods of a view class, or its dispatch")

        @functools.wraps(view)
        def guarded(*arguments: Any, **named: Any) -> Any:
            request = _request_of(arguments)
            asked = question(permission, resource, request)
            try:
                _require(request, asked)
            except GuardError as error:
                return _answer(error)
            return view(*arguments, **named)

        @functools.wraps(view)
        async def guarded_async(*arguments: Any, **named: Any) -> Any:
            request = _request_of(arguments)
            asked = question(permission, resource, request)
            try:
                await _require_async(request, asked)
            except GuardError as error:
                return _answer(error)
            return await view(*arguments, **named)

        return cast(View, guarded_async if iscoroutinefunction(view) else guarded)

    return decorate


class GuardMiddleware:
    """Lets requests pass as `PDP_ROUTES` says, and answers each `GuardError` that a view raises.

    The map matches `request.path_info`, by which Django finds views: without the prefix that a
    server, a mount, a proxy or `FORCE_SCRIPT_NAME` adds. If other middleware changes the path or
    the method behind the guard, the request is refused.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._routes: Routes = settings.PDP_ROUTES
        self.process_view: Callable[..., Any] = self._process_view
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)
            # Django would run the synchronous one in a thread.
            self.process_view = self._process_view_async
        _warn_of_order(list(settings.MIDDLEWARE))

    def __call__(self, request: HttpRequest) -> Any:
        """Answers the request itself if it is not allowed."""
        if iscoroutinefunction(self):
            return self._call_async(request)
        try:
            _require(request, self._judged(request))
        except GuardError as error:
            return _answer(error)
        return self._get_response(request)

    async def _call_async(self, request: HttpRequest) -> Any:
        try:
            await _require_async(request, self._judged(request))
        except GuardError as error:
            return _answer(error)
        return await self._get_response(request)

    def process_exception(self, _: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answers a `GuardError` of a view; Django handles every other exception."""
        return _answer(error) if isinstance(error, GuardError) else None

    def _process_view(self, request: HttpRequest, *_: Any) -> HttpResponse | None:
        """Refuses the view if Django found it by another path or method than the guard checked."""
        if request.pdp_judged == (request.method, request.path_info):
            return None
        return _answer(refused_route(request.method, request.path_info, "request_changed"))

    async def _process_view_async(self, request: HttpRequest, *_: Any) -> HttpResponse | None:
        return self._process_view(request)

    def _judged(self, request: HttpRequest) -> Question | None:
        request.pdp_judged = (request.method, request.path_info)
        # `request.method` is in capital letters, in whatever case it was sent.
        if isinstance(request, ASGIRequest):
            method, sent = request.scope["method"], sent_by_asgi(request.scope)
        else:
            method, sent = request.META["REQUEST_METHOD"], sent_by_wsgi(request.META)
        return routed(self._routes, method, request.path_info, sent)


def _warn_of_order(layers: list[str]) -> None:
    if {_CORS, _GUARD} <= set(layers) and layers.index(_CORS) > layers.index(_GUARD):
        log.warning("MIDDLEWARE: no preflight reaches %s behind %s: put it in front", _CORS, _GUARD)


def _require(request: HttpRequest, asked: Question | None) -> None:
    request.actor = None
    if asked is not None:
        guard = Guard.of(_guard())
        request.actor = guard.require(_token(request), asked.permission, asked.resource)


async def _require_async(request: HttpRequest, asked: Question | None) -> None:
    request.actor = None
    if asked is not None:
        guard = AsyncGuard.of(_guard())
        request.actor = await guard.require(_token(request), asked.permission, asked.resource)


def _guard() -> Guard | AsyncGuard:
    with _making:
        return _made(settings.PDP_GUARD)


@functools.cache
def _made(make: Callable[[], Guard | AsyncGuard]) -> Guard | AsyncGuard:
    return make()


def _token(request: HttpRequest) -> str:
    cookie_name = getattr(settings, "PDP_SESSION_COOKIE", SESSION_COOKIE)
    if isinstance(request, ASGIRequest):
        return asgi_token(request.scope, cookie_name)
    return wsgi_token(request.META, cookie_name)


def _request_of(arguments: tuple[Any, ...]) -> HttpRequest:
    """The request of a view: its first argument, or the second of a method."""
    for argument in arguments[:2]:
        if isinstance(argument, HttpRequest):
            return argument
    raise TypeError("a view gets its request first, and a method after its object")


def _answer(error: GuardError) -> HttpResponse:
    refusal = answer(error)
    return HttpResponse(refusal.body, status=refusal.status, headers=refusal.headers)
