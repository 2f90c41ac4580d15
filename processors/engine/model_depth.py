"""The number of layers of a model, which ``generate(assistant_early_exit=...)`` lowers while it drafts tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from logitkit.processors.model_facts import text_config


class ModelDepth:
    """Remembers how many layers a model has, and runs it with all of them.

    Early exit lowers ``num_hidden_layers`` of the configuration and calls the processors meanwhile. A stream reads with
    all layers, whoever calls it.

    Args:
        model: a model of transformers with all its layers.

    Example:
        >>> from logitkit.registry.laws import tiny_model
        >>> model = tiny_model()
        >>> depth = ModelDepth(model)
        >>> model.config.num_hidden_layers = 1
        >>> with depth.restored():
        ...     model.config.num_hidden_layers
        2
        >>> depth.is_lowered(), model.config.num_hidden_layers
        (True, 1)
        >>> model.config.num_hidden_layers = 2
    """

    def __init__(self, model: Any) -> None:
        base = getattr(model, getattr(model, "base_model_prefix", "") or "base_model", model)
        configs = (text_config(model), getattr(base, "config", None))
        self._layers: list[tuple[Any, int]] = [
            (config, count) for config in configs if (count := _layers(config)) is not None
        ]

    def is_lowered(self) -> bool:
        """Return whether the model runs without some of its layers now."""
        return any(_layers(config) != count for config, count in self._layers)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Give the model its layers back when the ``with`` block raises; transformers leaves them out then.

        Example:
            >>> import contextlib
            >>> from logitkit.registry.laws import tiny_model
            >>> model = tiny_model()
            >>> with contextlib.suppress(ValueError), ModelDepth(model).kept():
            ...     model.config.num_hidden_layers = 1
            ...     raise ValueError
            >>> model.config.num_hidden_layers
            2
        """
        try:
            yield
        except BaseException:
            for config, count in self._layers:
                config.num_hidden_layers = count
            raise

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Run the model with all its layers inside the ``with`` block."""
        if not self.is_lowered():
            yield
            return
        lowered = [(config, _layers(config)) for config, _ in self._layers]
        try:
            for config, count in self._layers:
                config.num_hidden_layers = count
            yield
        finally:
            for config, fewer in lowered:
                config.num_hidden_layers = fewer


def _layers(config: Any) -> int | None:
    """Return the number of layers that a configuration states, or None."""
    return getattr(config, "num_hidden_layers", None)
