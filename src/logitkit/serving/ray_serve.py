"""The server under Ray Serve: replicas of one model on one or several machines, behind one address.

    serve run logitkit.serving.ray_serve:app model=smollm2-135m replicas=2

Each replica is a process with the model, its own queue and the application of `create_app`. Ray Serve sends each
request to one replica. Needs the extra ``[ray]``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from logitkit.errors import MissingPackageError, ParameterError, UnknownNameError
from logitkit.registry.chain import Chain
from logitkit.serving.app import create_app
from logitkit.serving.engine import Engine
from logitkit.serving.limits import Limits
from logitkit.serving.resources import Resources

HEADER = "x-logitkit-replica"


class RayArguments(BaseModel):
    """The arguments of `app`; all but the last three mean what the options of ``logitkit serve`` mean.

    Attributes:
        model: a known name, a folder, or a hub id.
        name: name of the model in requests; empty: that of ``model``.
        chain: the chain of requests that name none.
        own_chains: whether requests may name a chain.
        other_models, tables, files: name to model or path; what chains may name.
        max_batch, max_queue, max_tokens, timeout: see `Limits`; they hold for each replica.
        device: empty: ``cuda`` where replicas have GPUs, else ``cpu``.
        dtype: float32, bfloat16 or float16.
        replicas: number of processes with the model.
        cpus, gpus: what a replica takes of its machine; torch uses as many threads as it has processors.

    >>> RayArguments.model_validate({"replicas": "2"}).replicas
    2
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "smollm2-135m"
    name: str = ""
    chain: str = ""
    own_chains: bool = True
    other_models: dict[str, str] = {}
    tables: dict[str, str] = {}
    files: dict[str, str] = {}
    max_batch: int = Limits.max_batch
    max_queue: int = Limits.max_queue
    max_tokens: int = Limits.max_tokens
    timeout: float = Limits.timeout
    device: str = ""
    dtype: str = "float32"
    replicas: int = Field(default=1, ge=1)
    cpus: float = Field(default=1.0, ge=0)
    gpus: float = Field(default=0.0, ge=0)

    @property
    def limits(self) -> Limits:
        """The limits of each replica."""
        return Limits(
            max_batch=self.max_batch, max_queue=self.max_queue, max_tokens=self.max_tokens, timeout=self.timeout
        )

    def load(self) -> Engine:
        """Load the models, and return the engine of one replica."""
        from logitkit import models
        from logitkit.models.placement import placement

        like, chain = placement("serve", self.device or ("cuda" if self.gpus else "cpu"), self.dtype), Chain(self.chain)
        load = functools.partial(models.load, like=like)
        names: dict[str, Any] = {"models": self.other_models, "tables": self.tables, "files": self.files}
        return Engine(
            *load(self.model),
            name=self.name or self.model,
            chain=chain,
            own_chains=self.own_chains,
            resources=Resources.load(load, **names, chain=chain),
            limits=self.limits,
        )


def app(arguments: Mapping[str, Any]) -> Any:
    """Return the application for ``serve run``, ``serve.run`` and the ``import_path`` of a configuration of Ray Serve.

    Args:
        arguments: see `RayArguments`; numbers may be texts, as the command line has them.

    Returns:
        An application of Ray Serve. The models are loaded in the replicas.

    Raises:
        ParameterError: an argument outside its range.
        UnknownNameError: an argument, or a step of the chain, that there is not.
        ChainError: the chain cannot be read.
        MissingPackageError: Ray Serve is not installed.
    """
    given = _checked(arguments)
    Chain(given.chain).require_packages()
    limits = given.limits
    serve = _import_serve()

    def build() -> Any:
        return _application(given.load, serve.get_replica_context().replica_id.unique_id)

    deployment = serve.deployment(serve.ingress(build)()).options(
        name="logitkit",
        num_replicas=given.replicas,
        max_ongoing_requests=limits.max_queue + limits.max_batch,  # the queue of the replica refuses more, status 429
        ray_actor_options={"num_cpus": given.cpus, "num_gpus": given.gpus},
    )
    return deployment.bind()


class ReplicaHeader:
    """Adds a header with the name of the replica to every answer.

    Args:
        app: the application.
        replica: the name.
    """

    def __init__(self, app: Any, replica: str) -> None:
        self._app, self._header = app, (HEADER.encode(), replica.encode())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer as the application does."""

        async def named(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), self._header]}
            await send(message)

        await self._app(scope, receive, named)


def _application(load: Callable[[], Engine], replica: str) -> Any:
    """Return the application of one replica."""
    application = create_app(load())
    application.add_middleware(ReplicaHeader, replica=replica)
    return application


def _checked(arguments: Mapping[str, Any]) -> RayArguments:
    """Return the arguments with their types.

    Raises:
        ParameterError, UnknownNameError: see `app`.
    """
    for name in arguments:
        if name not in RayArguments.model_fields:
            raise UnknownNameError("argument of the server under Ray Serve", name, RayArguments.model_fields)
    try:
        return RayArguments.model_validate(dict(arguments))
    except ValidationError as error:
        first = error.errors()[0]
        rule = first["msg"].removeprefix("Input should be ")
        raise ParameterError("serve", ".".join(map(str, first["loc"])), rule, first["input"]) from error


def _import_serve() -> Any:
    """Return the module of Ray Serve, which is imported only when it is used.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        from ray import serve
    except ImportError as error:
        raise MissingPackageError("serve", "ray[serve]", "ray") from error
    return serve
