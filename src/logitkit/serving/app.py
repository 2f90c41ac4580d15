"""The server as an ASGI application."""

from __future__ import annotations

from typing import Any

from logitkit.packages import require
from logitkit.serving.engine import Engine


def create_app(engine: Engine) -> Any:
    """Return the server as an application of FastAPI, for uvicorn or any other ASGI server.

    The engine starts and stops with the application.

    Args:
        engine: the model, its queue and its limits.

    Raises:
        MissingPackageError: FastAPI is not installed.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> app = create_app(Engine(tiny_model(), tiny_tokenizer(), name="tiny"))
    >>> sorted(route.path for route in app.routes if route.path.startswith("/v1/c"))
    ['/v1/chat/completions', '/v1/completions']
    """
    require("serve", "serve", "fastapi")
    from logitkit.serving.routes import application

    return application(engine)
