"""The player's server: the page, a websocket for each visitor, what is dropped on the page, what was recorded."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from starlette.websockets import WebSocketDisconnect

from ..types import Json
from . import messages
from .dropped import MOST_BYTES, clip_of
from .gate import Gate
from .stage import Stage
from .visit import Visit
from .visitors import AWAY_S, Visitor, Visitors

PAGE = Path(__file__).parent / "page"
FILES = {"": "index.html", "player.css": "player.css", "player.js": "player.js", "chart.js": "chart.js"}
WAITING = 64
"""Messages of a visitor that wait at most; the connection is not read on until there is room."""
UPLOADS = 2
"""Files that are read at a time."""
TAKEN_OVER, NO_ROOM = 4001, 4002
"""Why a connection was closed: the same visitor came again, or there are too many."""


def make_app(stage: Stage, token: str | None = None, visitors: Visitors | None = None) -> FastAPI:
    """The ASGI app.

    Args:
        token: what addresses must hold; None lets in this machine only, without one.
        visitors: who is there, for tests to look at.
    """
    everybody = Visitors() if visitors is None else visitors
    reading = asyncio.Semaphore(UPLOADS)

    @asynccontextmanager
    async def forgetting(_: FastAPI) -> AsyncIterator[None]:
        async def forget() -> None:
            while True:
                await asyncio.sleep(AWAY_S / 4)
                everybody.forget()

        task = asyncio.create_task(forget())
        yield
        task.cancel()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=forgetting)
    app.add_middleware(Gate, token=token)

    @app.websocket("/play")
    async def play(socket: WebSocket, visit: str = "") -> None:
        await socket.accept()
        visitor = everybody.find(visit)
        resumed = visitor is not None
        if visitor is None:
            if everybody.full:
                await socket.close(NO_ROOM, "there are too many visitors; try again later")
                return
            visitor = everybody.enter(await stage.run(lambda: Visit(stage)))
        visitor.connection += 1
        visitor.left = None
        visitor.stirred.set()
        connection = visitor.connection
        try:
            with suppress(WebSocketDisconnect):
                await _serve(socket, stage, visitor, resumed)
        finally:
            if visitor.connection == connection:
                everybody.leave(visitor)

    @app.post("/start")
    async def start(request: Request, visit: str = "", name: str = "film") -> Response:
        visitor = everybody.find(visit)
        if visitor is None:
            return PlainTextResponse("there is no such visitor any more; load the page again", 404)
        async with reading:
            with tempfile.TemporaryDirectory(prefix="flam-rl-") as folder:
                path = Path(folder) / ("dropped" + Path(name[:200]).suffix[:8])
                size = 0
                with path.open("wb") as file:
                    async for piece in request.stream():
                        size += len(piece)
                        if size > MOST_BYTES:
                            return PlainTextResponse(f"a file may have {MOST_BYTES >> 20} MB at most", 413)
                        file.write(piece)
                try:
                    frames = await asyncio.to_thread(clip_of, path, stage.world.frame_size)
                    async with visitor.lock:
                        await stage.run(lambda: visitor.visit.restart_from(frames))
                except (ValueError, ImportError) as error:
                    return PlainTextResponse(str(error), 422)
        visitor.stirred.set()
        return JSONResponse({"frames": len(frames)})

    @app.get("/film/{visit}.{kind}")
    async def film(visit: str, kind: str) -> Response:
        visitor = everybody.find(visit)
        shot = visitor.visit.shot if visitor else None
        if shot is None or kind not in ("mp4", "json"):
            return PlainTextResponse("there is no such film", 404)
        saved = {"content-disposition": f'attachment; filename="flam-rl.{kind}"'}
        if kind == "json":
            return JSONResponse(shot.json(), headers=saved)
        try:
            made = await asyncio.to_thread(shot.mp4)
        except ImportError as error:
            return PlainTextResponse(str(error), 501)
        return Response(made, media_type="video/mp4", headers=saved)

    @app.get("/{name:path}")
    async def page(name: str) -> Response:
        if name not in FILES:
            return PlainTextResponse("there is no such page", 404)
        return FileResponse(PAGE / FILES[name])

    return app


def make_server(app: FastAPI) -> uvicorn.Server:
    """What serves the app: sizes bounded, no log of addresses, for they may hold the token."""
    settings = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        ws="websockets-sansio",
        ws_max_size=messages.MOST_BYTES,
        ws_per_message_deflate=False,  # pixels for a page of the same machine: packing costs more than it saves
        limit_concurrency=64,
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(settings)


async def _serve(socket: WebSocket, stage: Stage, visitor: Visitor, resumed: bool) -> None:
    """Steps a visitor's world and sends what it shows, until the connection ends or another one takes over."""
    visit, connection = visitor.visit, visitor.connection
    inbox: asyncio.Queue[str | None] = asyncio.Queue(WAITING)

    async def listen() -> None:
        try:
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                await inbox.put(message.get("text"))
                visitor.stirred.set()
        finally:
            visitor.stirred.set()

    listener = asyncio.create_task(listen())
    try:
        await socket.send_json({"kind": "hello", "visit": visitor.id, "resumed": resumed} | stage.facts)
        due = time.monotonic()
        while not listener.done():
            if visitor.connection != connection:
                await socket.close(TAKEN_OVER, "this world is open in another window")
                return
            said = [inbox.get_nowait() for _ in range(inbox.qsize())]

            def go_on(said: list[str | None] = said, due: float = due) -> tuple[list[Json], bool, bytes]:
                answers = [answer for text in said if (answer := _obey(visit, text)) is not None]
                stepped = visit.running and time.monotonic() >= due
                if stepped:
                    visit.step()
                return answers, stepped, visit.view()

            async with visitor.lock:
                answers, stepped, view = await stage.run(go_on)
            for answer in answers:
                await socket.send_text(json.dumps(answer))
            await socket.send_bytes(view)
            now = time.monotonic()
            if stepped:
                due = max(due + 1 / visit.fps, now - 1 / visit.fps)  # what was missed is not made up for
            wait = due - now if visit.running else None
            if not inbox.empty() or (wait is not None and wait <= 0):
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(visitor.stirred.wait(), wait)
            visitor.stirred.clear()
    finally:
        listener.cancel()
        with suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
            await listener


def _obey(visit: Visit, text: str | None) -> Json | None:
    """The answer that the page gets to a message, or None."""
    try:
        return visit.obey(messages.read_message(text or ""))
    except ValueError as error:
        return {"kind": "error", "text": str(error)}
