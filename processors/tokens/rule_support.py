"""Support of tokenizers by the rules of canonical token sequences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from logitkit.processors.tokens.pretokenizer import unknown_step


@dataclass(frozen=True)
class UnsupportedPart:
    """A part of a tokenizer that has no rules.

    Attributes:
        part: ``model`` or ``pretokenizer``.
        kind: its type, as ``tokenizer.json`` calls it.
    """

    part: Literal["model", "pretokenizer"]
    kind: str

    def __str__(self) -> str:
        return f"{self.part} {self.kind}"


def unsupported_part(data: Mapping[str, Any]) -> UnsupportedPart | None:
    """Return the first part of a tokenizer that has no rules; None where all parts have rules.

    Args:
        data: the tokenizer's description.
    """
    model = data["model"]
    if model["type"] != "BPE":
        return UnsupportedPart("model", model["type"])
    if model.get("continuing_subword_prefix"):
        return UnsupportedPart("model", "BPE with continuing_subword_prefix")
    step = unknown_step(data)
    return None if step is None else UnsupportedPart("pretokenizer", step)
