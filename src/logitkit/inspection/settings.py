"""The settings of ``model.generate`` that completions and inspections accept."""

from __future__ import annotations

from typing import Any, Literal, TypedDict


class GenerateSettings(TypedDict, total=False):
    """Keyword arguments of ``model.generate``; an absent key leaves the model's own setting.

    ``streams`` belongs to `logitkit.registry.call.Call.generate`: how second streams of the generating model are read.
    """

    max_new_tokens: int
    min_new_tokens: int
    do_sample: bool
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    num_beams: int
    num_return_sequences: int
    assistant_model: Any
    prompt_lookup_num_tokens: int
    generation_config: Any
    streams: Literal["auto", "fused", "lazy"]
