"""The cookie of the console: one random secret, before and after somebody signs in."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

_NAME: Final = "pdp-console"
_CHARACTERS_MAX: Final = 64


class Cookies:
    """Reads and writes the cookie."""

    def __init__(self, origin: str) -> None:
        self._secure = origin.startswith("https:")
        # With the prefix a browser takes it from this host alone, and over TLS alone
        # (RFC 6265bis, 4.1.3.2).
        self.name = f"__Host-{_NAME}" if self._secure else _NAME

    def secret(self, request: Request) -> str:
        """The secret that a browser sent; empty: none."""
        return request.cookies.get(self.name, "")[:_CHARACTERS_MAX]

    def set(self, response: Response, secret: str) -> None:
        """Has the browser keep a secret until it is closed."""
        response.set_cookie(
            self.name, secret, path="/", secure=self._secure, httponly=True, samesite="strict"
        )

    def delete(self, response: Response) -> None:
        """Has the browser forget its secret."""
        response.delete_cookie(
            self.name, path="/", secure=self._secure, httponly=True, samesite="strict"
        )
