"""Facts about a model that its configuration states."""

from __future__ import annotations

from typing import Any


def text_config(model: Any) -> Any:
    """Configuration of the part of the model that decodes text."""
    return model.config.get_text_config(decoder=True)
