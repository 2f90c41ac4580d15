"""Runs the server over a tiny model in a thread, for the tests."""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import uvicorn

from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.serving import Engine, create_app

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<{{ mood | default('assistant') }}>"


@functools.cache
def chatting_tokenizer() -> Any:
    """Return the tiny tokenizer with a chat template."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_engine(**settings: Any) -> Engine:
    """Return an engine over the tiny model; settings as of `Engine`."""
    return Engine(tiny_model(), chatting_tokenizer(), **{"name": "tiny", **settings})


@contextmanager
def running(engine: Engine) -> Iterator[str]:
    """Run the server of an engine in a thread, and yield its address, such as ``http://127.0.0.1:8000``."""
    server = uvicorn.Server(uvicorn.Config(create_app(engine), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
            assert thread.is_alive(), "the server did not start"
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def client_of(address: str) -> openai.OpenAI:
    """Return a client of OpenAI that does not try again."""
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60)
