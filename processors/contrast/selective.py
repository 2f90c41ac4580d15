"""USCD as a logits processor: contrast with the prompt without examples, at uncertain steps only.

arXiv:2409.05923. The formula is `logitkit.processors.contrast.formulas.uscd`; the examples are removed by
`logitkit.processors.contrast.lame_prompt`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.params import Resource, checked, number, option
from logitkit.processors.contrast.confidence_measures import Confidence
from logitkit.processors.contrast.formulas import Form, uscd_gate, uscd_is_neutral, uscd_where
from logitkit.processors.contrast.lame_prompt import strip_examples, strip_messages
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.chats import apply_template
from logitkit.processors.engine.other_prompts import PromptTexts
from logitkit.processors.engine.scores import at_width
from logitkit.processors.engine.streams import Stream, StreamLike, as_stream
from logitkit.processors.engine.trace import Trace


class USCD(LogitsProcessor):
    """Uncertainty-aware selective contrastive decoding, arXiv:2409.05923, as `uscd` computes it.

    The second stream reads the prompt without its examples (the lame prompt). At a step on which the gate fires in
    no row, the second stream is not read. The tokens of such steps are read in one chunk at the next step on which
    the gate fires.

    Args:
        rho: contrast strength, >= 0; at 0 the scores are returned unchanged.
        gate: confidence threshold, 0 to 1; at 0 the scores are returned unchanged.
        head: a multiple of 1 / vocab, >= 0; less probable tokens are removed from contrasted rows.
        form: ``diff`` or ``ratio``, see `uscd`.
        measure: see `confidence`.
        lame: the stream under the lame prompt.
        applies: maps rows of tokens to bool ``[rows]``: whether the lame prompt of a row differs from its prompt.
            Rows with False are never contrasted. None: every row may be contrasted.
        trace: receives the confidence and the decision of the gate at each step.

    Raises:
        ParameterError: a parameter is outside its range.

    Example:
        >>> import torch
        >>> lame = lambda rows: torch.tensor([[0.25, 0.6, 0.1, 0.05]]).log()
        >>> processor = USCD(lame=lame, rho=0.5, gate=1.0, head=0.0)
        >>> processor(torch.tensor([[7]]), torch.tensor([[0.5, 0.3, 0.2, 0.0]]).log()).exp()
        tensor([[0.7143, 0.0000, 0.2857, 0.0000]])
    """

    @checked
    def __init__(
        self,
        *,
        rho: Annotated[float, number("contrast strength", ge=0, neutral=0)] = 0.7,
        gate: Annotated[
            float, number("contrast the rows whose confidence is at most this value", ge=0, le=1, neutral=0)
        ] = 0.894,
        head: Annotated[
            float, number("smallest probability in contrasted rows, as a multiple of 1 / vocabulary", ge=0)
        ] = 2 / 3,
        form: Annotated[Form, option("diff: log(p - rho q); ratio: log p - rho log q")] = "diff",
        measure: Annotated[Confidence, option("measure of confidence, computed from a row's probabilities")] = "norm",
        lame: StreamLike,
        applies: Annotated[Callable[[Tensor], Tensor] | None, Resource()] = None,
        trace: Annotated[Trace | None, Resource()] = None,
    ) -> None:
        self.rho, self.gate, self.head, self.form, self.measure = rho, gate, head, form, measure
        self.lame, self.applies, self.trace = as_stream(lame), applies, trace
        self.streams: tuple[Stream, ...] = () if uscd_is_neutral(rho=rho, gate=gate) else (self.lame,)

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        rho: float,
        gate: float,
        head: float,
        form: Form,
        measure: Confidence,
        lame: Annotated[
            PromptTexts | None,
            option("the lame prompt, one for all prompts or one for each; None: the prompt without its examples"),
        ] = None,
    ) -> USCD:
        """Build the processor whose second stream has the lame prompts; notices list the removed examples.

        Raises:
            ParameterError: the number of lame prompts is neither one nor the number of prompts.
        """
        lame_prompts = _lame_prompts(binding, lame)
        unchanged = torch.tensor([ids == own for ids, own in zip(lame_prompts, binding.own_prompts(), strict=True)])
        differs = ~unchanged.to(binding.model.device)

        def applies(input_ids: Tensor) -> Tensor:
            return differs.to(input_ids.device)[binding.prompts.rows(input_ids)]

        processor = cls(
            rho=rho,
            gate=gate,
            head=head,
            form=form,
            measure=measure,
            lame=binding.reader(lame_prompts, label="lame prompt"),
            applies=applies if bool(unchanged.any()) else None,
            trace=binding.trace,
        )
        if bool(unchanged.all()):
            processor.streams = ()
            binding.no_effect["uscd"] = (
                "no prompt has examples to remove" if lame is None else "every lame prompt is the prompt itself",
                "add input/output examples, give lame='the prompt without its examples', or leave uscd out",
            )
        return processor

    @property
    def asks_by_gate(self) -> bool:
        """Whether the lame prompt is asked only where the gate is open."""
        return self.gate < 1

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with uncertain rows contrasted to log-probabilities, ``[rows, vocab]``."""
        if uscd_is_neutral(rho=self.rho, gate=self.gate):
            return scores
        certainty, fired = uscd_gate(scores, gate=self.gate, measure=self.measure)
        if self.applies is not None:
            fired = fired & self.applies(input_ids)
        if self.trace is not None:
            self.trace.note(gate=certainty, fired=fired)
            self.trace.count_fired("uscd", fired)
        lame = self.lame.where(fired, input_ids)
        if lame is None:
            return scores
        lame = at_width(lame, scores.shape[-1])
        return uscd_where(fired, scores, lame, rho=self.rho, head=self.head, form=self.form).to(scores.dtype)


def _lame_prompts(binding: Binding, texts: PromptTexts | None) -> list[list[int]]:
    """Return the token ids of the lame prompts: ``texts``, or the prompts without their examples.

    In the second case a notice for each prompt lists the removed pieces.
    """
    prompts, lame_ids = binding.prompts, binding.own_prompts()
    if texts is not None:
        return [prompts.encode(binding.tokenizer, text) for text in binding.one_text_per_prompt("uscd", "lame", texts)]
    for index, (text, chat) in enumerate(zip(prompts.texts, prompts.messages, strict=True)):
        if chat is None:
            stripped = strip_examples(text)
            lame, removed = stripped.text, stripped.removed
        else:
            messages, removed = strip_messages([dict(message) for message in chat])
            lame = apply_template(binding.tokenizer, messages, prompts.template) if removed else text
        if removed:
            lame_ids[index] = prompts.encode(binding.tokenizer, lame) or lame_ids[index]
            pieces = "1 piece" if len(removed) == 1 else f"{len(removed)} pieces"
            notice = f"without its examples, {prompts.name(index)} lacks {pieces}: " + " | ".join(removed)
        else:
            notice = f"{prompts.name(index)} has no examples to remove; its rows are not contrasted"
        binding.trace.notices.append(f"uscd: {notice}")
    return lame_ids
