"""The endpoints of the server, as an application of FastAPI."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from logitkit.errors import ParameterError
from logitkit.serving.batch_run import contained
from logitkit.serving.engine import Engine
from logitkit.serving.exchange import DisconnectedError, Exchange
from logitkit.serving.failures import INVALID, Failure, failure_of, summary_of
from logitkit.serving.fields import DEEPEST, ChatFields, CommonFields, CompletionFields, is_shallow, read_fields
from logitkit.serving.intake import BodyTooLongError, rows_of
from logitkit.serving.row import Row
from logitkit.serving.shapes import ChatShape, CompletionShape, Shape

LOG = logging.getLogger("logitkit.serving")
SENDING_SECONDS = 10.0  # after its time, a stream may be sent for so long
CLIENT_LEFT = 499  # in logs and counters alone; nobody receives it


def application(engine: Engine) -> FastAPI:
    """Return the application of an engine; the engine runs as long as the application.

    Args:
        engine: the model, its queue and its limits.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        await run_in_threadpool(engine.stop)

    app = FastAPI(title="logitkit serve", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_exception_handler(HTTPException, _no_such_page)
    app.add_exception_handler(Exception, _fault)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await Handling(engine, request, "completions").answer(CompletionFields, CompletionShape)

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        return await Handling(engine, request, "chat.completions").answer(ChatFields, ChatShape)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(engine)]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        if name != engine.name:
            return _refused(Failure(404, INVALID, f"no model named {name!r}", "model", "model_not_found"))
        return JSONResponse(_model(engine))

    @app.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "ok" if engine.alive else "stopped"}, 200 if engine.alive else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse(engine.metrics.text(engine), media_type="text/plain; version=0.0.4")

    return app


class Handling:
    """One request for texts: reads it, answers it, counts it and writes its line in the log.

    Args:
        engine: generates the texts.
        request: the request.
        owner: the endpoint, for errors.
    """

    def __init__(self, engine: Engine, request: Request, owner: str) -> None:
        self._engine, self._request, self._owner = engine, request, owner
        self._began, self._rows = time.monotonic(), list[Row]()

    async def answer(self, kind: type[CommonFields], shape: type[Shape]) -> Response:
        """Return the answer, or the beginning of a stream."""
        try:
            body = await self._body()
            fields = await run_in_threadpool(self._fields, kind, body)
            self._rows = await run_in_threadpool(contained, rows_of, self._engine, self._owner, fields)
            shaped = shape(self._rows, self._engine.name, self._engine.tokenizer)
            exchange = Exchange(self._engine, shaped, self._until_left, began=self._began)
            exchange.submit()
            if fields.stream:
                usage = bool((fields.stream_options or {}).get("include_usage"))
                until = self._began + self._engine.limits.timeout + SENDING_SECONDS
                return TimedStream(self._stream(exchange, usage), until=until)
            answer = await exchange.answer()
        except (DisconnectedError, ClientDisconnect):
            self._note(CLIENT_LEFT)
            return Response(status_code=CLIENT_LEFT)
        except Exception as error:
            failure = failure_of(error)
            self._note(failure.status, summary_of(error))
            return _refused(failure)
        self._note(200)
        return JSONResponse(answer)

    async def _stream(self, exchange: Exchange, usage: bool) -> AsyncIterator[str]:
        """Yield the events of a stream; an error becomes an event, since the status was sent before."""
        status, message = CLIENT_LEFT, ""  # if the generator is closed before its end
        try:
            async with aclosing(exchange.parts(usage=usage)) as parts:
                async for part in parts:
                    yield _event(part)
            status = 200
            yield "data: [DONE]\n\n"
        except DisconnectedError:
            pass
        except Exception as error:
            failure = failure_of(error)
            status, message = failure.status, summary_of(error)
            yield f"data: {failure.json}\n\n"
        finally:
            self._note(status, message)

    async def _body(self) -> bytes:
        """Return the body.

        Raises:
            ParameterError: another type of content, or too many bytes.
            ClientDisconnect: the client left before the end of the body.
        """
        kind = self._request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # pages of other origins cannot send this type without asking
            way_out = "send the header Content-Type: application/json"
            raise ParameterError(self._owner, "Content-Type", "application/json", kind, way_out)
        read, most = bytearray(), self._engine.limits.max_bytes
        async for part in self._request.stream():
            read += part
            if len(read) > most:
                raise BodyTooLongError(self._owner, "the body", f"of at most {most} bytes", "a longer one")
        return bytes(read)

    def _fields(self, kind: type[CommonFields], read: bytes) -> Any:
        """Return the checked fields of a body; megabytes take seconds, so not in the loop of the server.

        Raises:
            ParameterError: no JSON, JSON that is nested too deep, or a field that is refused.
        """
        try:
            body = json.loads(read)
        except (ValueError, RecursionError) as error:
            raise ParameterError(self._owner, "the body", "JSON", read[:60], str(error)[:200]) from error
        if not is_shallow(body):
            raise ParameterError(self._owner, "the body", f"JSON nested at most {DEEPEST} deep", read[:60])
        return read_fields(self._owner, kind, body)

    async def _until_left(self) -> None:
        """Return when the client has left."""
        while (await self._request.receive())["type"] != "http.disconnect":
            pass

    def _note(self, status: int, message: str = "") -> None:
        """Count the request and write its line in the log."""
        seconds = time.monotonic() - self._began
        read = sum({id(row.prompt): row.prompt.tokens for row in self._rows}.values())
        written = sum(row.tokens for row in self._rows)
        self._engine.metrics.count_request(self._request.url.path, status, seconds, read, written)
        chain = str(self._rows[0].chain) if self._rows else ""
        facts = [f"{read} tokens read", f"{written} written", f"{seconds:.2f} s"]
        facts += [f"chain {chain}"] if chain else []
        facts += [json.dumps(message)] if message else []  # one line, whatever the message quotes
        LOG.info("%s %s %d, %s", self._request.method, self._request.url.path, status, ", ".join(facts))


class TimedStream(StreamingResponse):
    """A stream that ends at a time, even when its client does not read and the server waits to send.

    Args:
        events: the parts.
        until: when to give up, by `time.monotonic`.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str], *, until: float) -> None:
        super().__init__(events)
        self._until = until

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        seconds = max(0.0, self._until - time.monotonic())
        limit = None if seconds == float("inf") else seconds
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(super().__call__(scope, receive, send), limit)


def _event(data: dict[str, Any]) -> str:
    """Return one event of a stream."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


def _model(engine: Engine) -> dict[str, Any]:
    """Return what is said about the model."""
    return {"id": engine.name, "object": "model", "created": 0, "owned_by": "logitkit", "max_model_len": engine.context}


def _refused(failure: Failure) -> Response:
    """Return an error as an answer."""
    return Response(failure.json, failure.status, failure.headers, "application/json")


async def _no_such_page(request: Request, error: Exception) -> Response:
    """Answer requests for pages that do not exist, and with methods that they do not have."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    text = f"serve: no {request.method} {request.url.path}; see /v1/models, /v1/completions, /v1/chat/completions"
    return _refused(Failure(status, INVALID, text))


async def _fault(_: Request, error: Exception) -> Response:
    """Answer a request that met a fault of the server; uvicorn writes the traceback."""
    return _refused(failure_of(error))
