"""The assistant of a call: its drafts leave out what only the generating model need read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from logitkit.processors.engine.composite import Composite
from logitkit.processors.engine.drafts import Drafts, assistant_view
from logitkit.registry.attached_generate import plain_generate


def with_drafts(composite: Composite, settings: Mapping[str, Any]) -> tuple[Drafts, dict[str, Any]]:
    """Return the drafts of a call, and its settings with an assistant that drafts under its chain.

    Args:
        composite: the chain.
        settings: of `generate`.
    """
    drafts = Drafts(composite, plain_generate, shares_tokens=settings.get("assistant_tokenizer") is None)
    assistant = settings.get("assistant_model")
    view = {} if assistant is None else {"assistant_model": assistant_view(assistant, drafts)}
    return drafts, {**settings, **view}
