"""Who may talk to the player: this machine, or whoever has the token."""

from __future__ import annotations

import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",  # an address may hold the token
    "cache-control": "no-store",
}


class Gate:
    """ASGI middleware.

    A page of another origin may make a browser connect here, so `Origin` must be this server's own wherever something is done;
    and its name may lead here too (DNS rebinding), so without a token `Host` must be this machine.

    Args:
        token: what an address must hold once, as `?token=`; the browser then keeps it in a cookie. None: no token is needed.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app, self.token = app, token
        self.cookie = "flam_rl_player"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve an ASGI request that passes the checks; refuse any other."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        refusal = self._refusal(scope, headers, given)
        if refusal is None:

            async def signed(message: Message) -> None:
                if message["type"] == "http.response.start":
                    said = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                    if self.token and given:
                        kept = f"{self.cookie}={self.token}; HttpOnly; SameSite=Lax; Path=/"
                        said.append((b"set-cookie", kept.encode()))
                    message["headers"] = [*message["headers"], *said]
                await send(message)

            await self.app(scope, receive, signed)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": refusal})
        else:
            await PlainTextResponse(refusal + "\n", 403)(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers, given: str) -> str | None:
        host = headers.get("host", "")
        if self.token is None:
            if _name(host) not in LOOPBACK:
                return "this player is served to its own machine only; --host lets others in, with a token"
        elif not any(
            secrets.compare_digest(one.encode(), self.token.encode()) for one in (given, self._kept(headers))
        ):
            return "open the address that flam-rl play printed: it holds the token"
        if scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD"):
            origin = urlsplit(headers.get("origin", "")).netloc
            if not host or origin != host:
                return "the request is from a page of another origin"
        return None

    def _kept(self, headers: Headers) -> str:
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return ""
        return found.value if found else ""


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
