"""``logitkit serve``: an OpenAI-compatible server in which each request may name its chain."""

from __future__ import annotations

import ipaddress
import json
import logging
import math
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from logitkit.cli import options
from logitkit.cli.inputs import load_model, read_chain
from logitkit.errors import ParameterError
from logitkit.packages import require

if TYPE_CHECKING:
    from logitkit.serving import Engine

EXAMPLES = (
    "logitkit serve --model smollm2-135m --port 8000",
    'logitkit serve --chain "temperature(0.8) | min_p(0.05)" --no-own-chains --max-batch 8',
    "logitkit serve --other-model large=Qwen/Qwen2.5-3B --timeout 60",
)
Named = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=MODEL", help="A model that chains may name; can be given several times."),
]


# Over 40 lines: each option of the command is a parameter.
def serve(
    model: options.Model = "smollm2-135m",
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is every network of this machine.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")] = 8000,
    chain: Annotated[str, typer.Option(help="The chain of requests that name none; text or a file, as in run.")] = "",
    own_chains: Annotated[
        bool, typer.Option("--own-chains/--no-own-chains", help="Whether requests may name a chain of their own.")
    ] = True,
    name: Annotated[str, typer.Option(help="Name of the model in requests; by default that of --model.")] = "",
    other_model: Named = None,
    table: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="An n-gram table that chains may name; can be given several times."),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH", help="A head, threshold or alignment that chains may name; can be given several times."
        ),
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Texts that are generated together.")] = 16,
    max_queue: Annotated[int, typer.Option(min=1, help="Texts that may wait; more are refused, status 429.")] = 256,
    max_tokens: Annotated[int, typer.Option(min=1, max=options.MOST_TOKENS, help="Most new tokens of a text.")] = 4096,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds until a request ends with status 504.")] = 300.0,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
) -> None:
    """Serve a model to clients of OpenAI: completions and chats, with a chain in each request.

    A request names its chain in the field "chain"; requests with the same chain are generated together. Ctrl-C ends
    the server when the requests that run are answered; a second Ctrl-C ends it at once.
    """
    require("serve", "serve", "fastapi", "uvicorn")
    default, names = read_chain(chain), _named("--other-model", "MODEL", other_model)
    tables, files = _named("--table", "FILE", table), _named("--file", "PATH", file)
    limits: Any = {"max_batch": max_batch, "max_queue": max_queue, "max_tokens": max_tokens, "timeout": timeout}
    with _listener(host, port) as listener:
        loaded, tokenizer = load_model("serve", model, device=device, dtype=dtype)
        from logitkit import models
        from logitkit.serving import Engine, Limits, Resources

        named: Any = {"models": names, "tables": tables, "files": files}
        resources = Resources.load(lambda other: models.load(other, like=loaded), **named, chain=default)
        settings: Any = {"chain": default, "own_chains": own_chains, "limits": Limits(**limits)}
        _run(Engine(loaded, tokenizer, name=name or model, resources=resources, **settings), listener)


def _named(option: str, kind: str, given: list[str] | None) -> dict[str, str]:
    """Return the values of an option ``NAME=KIND`` by name.

    Raises:
        ParameterError: no name, no value, a name that is given twice, or a file that does not exist.
    """
    named: dict[str, str] = {}
    for text in given or ():
        name, _, value = text.partition("=")
        if not name or not value or name in named:
            raise ParameterError("serve", option, f"NAME={kind}, each name once", text)
        if kind != "MODEL" and not Path(value).expanduser().exists():
            raise ParameterError("serve", option, f"NAME={kind} with a path that exists", text)
        named[name] = value
    return named


def _listener(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address, before a model is loaded.

    Raises:
        ParameterError: the address is not one of this machine, or the port is taken.
    """
    listener = None
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        if listener is not None:
            listener.close()
        rule = "an address of this machine and a free port"
        raise ParameterError("serve", "--host and --port", rule, f"{host}:{port}", error.strerror or "") from error
    return listener


def _run(engine: Engine, listener: socket.socket) -> None:
    """Serve until the program is told to stop."""
    import uvicorn

    from logitkit.serving import create_app

    log = logging.getLogger("logitkit.serving")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)

    class Server(uvicorn.Server):
        """Says where it listens, and what a Ctrl-C does."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                typer.echo(_greeting(engine, listener), err=True)

        def handle_exit(self, sig: int, frame: Any) -> None:
            if not self.should_exit:
                left = engine.waiting + engine.running
                typer.echo(f"stopping; texts left: {left}; Ctrl-C stops at once", err=True)
            super().handle_exit(sig, frame)

    # A client that does not read its answer must not keep the server from ending.
    most = None if math.isinf(engine.limits.timeout) else math.ceil(engine.limits.timeout)
    config = uvicorn.Config(create_app(engine), log_config=None, log_level="warning", timeout_graceful_shutdown=most)
    server = Server(config)
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:  # uvicorn passes it on when all is answered
        typer.echo("stopped", err=True)
        raise typer.Exit(130) from None
    finally:
        log.removeHandler(handler)
        if server.force_exit:  # the thread that generates would be waited for
            os._exit(130)


def _greeting(engine: Engine, listener: socket.socket) -> str:
    """Return the lines that say where the server is, and how to use it."""
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
    body = {"model": engine.name, "prompt": "The sea is", "max_tokens": 16}
    body |= {"chain": "cfg(1.5)"} if engine.own_chains else {}
    lines = [f"logitkit serve: {engine.name} at {address}"]
    if not ipaddress.ip_address(host).is_loopback:
        lines.append("warning: whoever reaches this address can use the model; see the documentation on security")
    lines.append(f"curl {address}/completions -H 'Content-Type: application/json' -d '{json.dumps(body)}'")
    return "\n".join(lines)
