"""One stage of a sequence-level cascade: generate outputs in batches and keep the log-probabilities of their tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from logitkit.errors import ParameterError
from logitkit.processors.engine.call_settings import CallSettings
from logitkit.processors.engine.prompts import pad_token, read_prompts


@dataclass(frozen=True, eq=False, kw_only=True)
class Stage:
    """One model of a cascade and its settings of generation.

    Attributes:
        model, tokenizer: the model and its own tokenizer.
        generate_kwargs: arguments of the model's `generate`; they override arguments passed to the cascade.
        batch_size: number of prompts that are generated together.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> Stage(model=tiny_model(), tokenizer=tiny_tokenizer(), generate_kwargs={"max_new_tokens": 4}).batch_size
    8
    """

    model: Any
    tokenizer: Any
    generate_kwargs: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 8


@dataclass(frozen=True, eq=False, kw_only=True)
class StageOutputs:
    """Outputs of one stage.

    Attributes:
        texts: one output for each prompt.
        logps: log-probability of every emitted token under the model's distribution before any logits processor,
            nats, ``[prompts, tokens]``; 0 outside the mask.
        mask: True for emitted tokens, bool ``[prompts, tokens]``; see ``include_end`` of `generate_outputs`.

    >>> outputs = StageOutputs(texts=["ab"], logps=torch.tensor([[-1.0, -2.0]]), mask=torch.tensor([[True, True]]))
    >>> float(outputs.logps[outputs.mask].sum())
    -3.0
    """

    texts: list[str]
    logps: Tensor
    mask: Tensor


@torch.no_grad()
def generate_outputs(
    stage: Stage,
    prompts: Sequence[Any],
    *,
    include_end: bool = True,
    advance: Callable[[int], None] = lambda count: None,
    **generate_kwargs: Any,
) -> StageOutputs:
    """Generate one output for each prompt, in batches; greedy unless ``do_sample`` is set.

    Args:
        stage: model, tokenizer and settings.
        prompts: texts or chats.
        include_end: whether the mask includes the end token.
        advance: called after each batch with its number of prompts.
        generate_kwargs: arguments of the model's `generate`; those of the stage take precedence.

    Raises:
        ParameterError: beam search or several sequences a prompt were requested.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> stage = Stage(model=tiny_model(), tokenizer=tiny_tokenizer())
    >>> generate_outputs(stage, ["a prompt", "b"], max_new_tokens=4, eos_token_id=None).logps.shape
    torch.Size([2, 4])
    """
    settings = {"do_sample": False, **generate_kwargs, **stage.generate_kwargs}
    if (settings.get("num_beams") or 1) > 1 or (settings.get("num_return_sequences") or 1) > 1:
        raise ParameterError("SequenceCascade", "num_beams and num_return_sequences", "1", settings, "leave them out")
    batches = []
    for start in range(0, len(prompts), stage.batch_size):
        batches.append(_generate_batch(stage, list(prompts[start : start + stage.batch_size]), include_end, settings))
        advance(len(batches[-1].texts))
    return _concatenated(batches)


def _generate_batch(stage: Stage, prompts: list[Any], include_end: bool, settings: dict[str, Any]) -> StageOutputs:
    """Generate the outputs of one batch."""
    bound = read_prompts(stage.tokenizer, stage.model, prompts)
    told = CallSettings(stage.model, bound)
    told.tell(settings)
    padding = pad_token(stage.tokenizer, stage.model) if told.padding is None else told.padding
    output = stage.model.generate(
        bound.ids,
        attention_mask=bound.mask,
        return_dict_in_generate=True,
        output_logits=True,
        **{**settings, "pad_token_id": padding},
    )
    tokens = output.sequences[:, output.sequences.shape[1] - len(output.logits) :]
    steps = [
        logits.float().log_softmax(-1).gather(-1, chosen[:, None].to(logits.device))[:, 0].cpu()
        for logits, chosen in zip(output.logits, tokens.unbind(1), strict=True)
    ]
    written = [told.without_padding(row) for row in tokens.tolist()]
    return StageOutputs(
        texts=stage.tokenizer.batch_decode(written, skip_special_tokens=True),
        logps=torch.stack(steps, dim=1),
        mask=_emitted(tokens.cpu(), told.end_tokens(), include_end),
    )


def _concatenated(batches: Sequence[StageOutputs]) -> StageOutputs:
    """Return the outputs of all batches, padded to the longest."""
    if not batches:
        return StageOutputs(texts=[], logps=torch.zeros(0, 0), mask=torch.zeros(0, 0, dtype=torch.bool))
    width = max(batch.logps.shape[1] for batch in batches)

    def padded(part: Tensor) -> Tensor:
        return torch.nn.functional.pad(part, (0, width - part.shape[1]))

    mask = torch.cat([padded(batch.mask) for batch in batches])
    logps = torch.cat([padded(batch.logps) for batch in batches])
    texts = [text for batch in batches for text in batch.texts]
    return StageOutputs(texts=texts, logps=logps.masked_fill(~mask, 0), mask=mask)


def _emitted(tokens: Tensor, ends: Sequence[int], include_end: bool) -> Tensor:
    """Return a mask of the tokens up to the first end token, bool ``[rows, tokens]``."""
    is_end = torch.isin(tokens, torch.tensor(sorted(ends), dtype=tokens.dtype))
    ends_before = is_end.long().cumsum(-1) - is_end.long()
    return (ends_before == 0) & (include_end | ~is_end)
