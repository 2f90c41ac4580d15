"""The contrast family as processors: each asks a reader for its second opinion, and only when it must.

The formulas are in `logitkit.processors.contrast.formulas`; a processor adds where the second stream comes from.
``streams`` names the second streams that it will ask, so that they can ride in the generating model's forward.
All can be built with no registry: a second stream is any callable ``rows of tokens -> logits``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ParameterError
from logitkit.params import Resource, checked, is_neutral, number, option
from logitkit.processors.contrast import formulas as contrast
from logitkit.processors.contrast.lame_prompt import strip_examples, strip_messages
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.prompts import apply_template
from logitkit.processors.engine.reader import read_where
from logitkit.processors.engine.scores import fit
from logitkit.processors.engine.streams import NextLogits
from logitkit.processors.engine.trace import Trace

Texts = str | list[str]


class CFG(LogitsProcessor):
    """Classifier-free guidance (arXiv:2306.17806); the second stream lacks the prompt or has a negative one."""

    @checked
    def __init__(
        self,
        *,
        unconditional: NextLogits,
        scale: Annotated[float, number("guidance scale; above 1 follows the prompt more", ge=0, neutral=1)] = 1.5,
    ) -> None:
        self.unconditional, self.scale = unconditional, scale
        self.streams = () if is_neutral(scale, 1) else (unconditional,)

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        negative: Annotated[
            Texts | None,
            option("negative prompt, one for all or one a prompt; None: the prompt's last token alone"),
        ] = None,
        **strength: float,
    ) -> CFG:
        """Read along under the negative prompt."""
        if negative is None:
            own = [ids[-1:] for ids in binding.own_prompts()]
        else:
            own = [
                binding.prompts.encode(binding.tokenizer, text)
                for text in binding.one_each("cfg", "negative", negative)
            ]
        return cls(unconditional=binding.reader(own, label="negative prompt"), **strength)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return guided log-probabilities, ``[rows, vocab]``."""
        if is_neutral(self.scale, 1):
            return scores
        second = fit(self.unconditional(input_ids), scores.shape[-1])
        return contrast.cfg(scores, second, scale=self.scale)


class CAD(LogitsProcessor):
    """Context-aware decoding (arXiv:2305.14739); the second stream lacks the context."""

    @checked
    def __init__(
        self,
        *,
        without: NextLogits,
        alpha: Annotated[float, number("how much more the context counts", ge=0, neutral=0)] = 0.5,
    ) -> None:
        self.without, self.alpha = without, alpha
        self.streams = () if is_neutral(alpha, 0) else (without,)

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        context: Annotated[Texts, option("the part of the prompt to contrast away, one for all or one a prompt")],
        **strength: float,
    ) -> CAD:
        """Read along under the prompt with the context cut out."""
        own = []
        for text, piece in zip(binding.prompts.texts, binding.one_each("cad", "context", context), strict=True):
            if not piece or piece not in text:
                raise ParameterError("cad", "context", "a piece of its prompt, word for word", piece)
            own.append(binding.prompts.encode(binding.tokenizer, text.replace(piece, "", 1)))
            if not own[-1]:
                raise ParameterError("cad", "context", "less than the whole prompt", piece)
        return cls(without=binding.reader(own, label="no context"), **strength)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return log-probabilities with the context amplified, ``[rows, vocab]``."""
        if is_neutral(self.alpha, 0):
            return scores
        second = fit(self.without(input_ids), scores.shape[-1])
        return contrast.cad(scores, second, alpha=self.alpha)


class Contrastive(LogitsProcessor):
    """Contrastive decoding (arXiv:2210.15097); the generating model is the expert."""

    @checked
    def __init__(
        self,
        *,
        amateur: NextLogits,
        beta: Annotated[float, number("strength", ge=0, neutral=0)] = 0.5,
        alpha: Annotated[float, number("plausibility, as a share of the best probability", gt=0, le=1)] = 0.1,
    ) -> None:
        self.amateur, self.beta, self.alpha = amateur, beta, alpha
        self.streams = () if is_neutral(beta, 0) else (amateur,)

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        amateur: Annotated[str, option("the weak model: a name passed to bind, a hub id, or a folder")],
        **strength: float,
    ) -> Contrastive:
        """Read along with the amateur under the same prompt."""
        model = binding.same_vocabulary(amateur, "contrastive")
        return cls(amateur=binding.reader(binding.own_prompts(), model, label=amateur), **strength)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return contrasted log-probabilities, ``[rows, vocab]``."""
        if is_neutral(self.beta, 0):
            return scores
        second = fit(self.amateur(input_ids), scores.shape[-1])
        return contrast.contrastive(scores, second, beta=self.beta, alpha=self.alpha)


class DExperts(LogitsProcessor):
    """DExperts (arXiv:2105.03023) and proxy tuning (arXiv:2401.08565); the generating model is the base."""

    @checked
    def __init__(
        self,
        *,
        expert: NextLogits,
        antiexpert: NextLogits,
        alpha: Annotated[float, number("strength; negative turns the roles around", neutral=0)] = 1.0,
    ) -> None:
        self.expert, self.antiexpert, self.alpha = expert, antiexpert, alpha
        self.streams = () if is_neutral(alpha, 0) else (expert, antiexpert)

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        expert: Annotated[str, option("the tuned small model: a name passed to bind, a hub id, or a folder")],
        antiexpert: Annotated[str, option("the untuned (or anti-tuned) small model, named likewise")],
        **strength: float,
    ) -> DExperts:
        """Read along with both small models under the same prompt."""
        models = [binding.same_vocabulary(name, "dexperts") for name in (expert, antiexpert)]
        own = binding.own_prompts()
        readers = [binding.reader(own, m, label=name) for m, name in zip(models, (expert, antiexpert), strict=True)]
        return cls(expert=readers[0], antiexpert=readers[1], **strength)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return shifted log-probabilities, ``[rows, vocab]``."""
        if is_neutral(self.alpha, 0):
            return scores
        width = scores.shape[-1]
        expert, antiexpert = (fit(read(input_ids), width) for read in (self.expert, self.antiexpert))
        return contrast.dexperts(scores, expert, antiexpert, alpha=self.alpha)


class USCD(LogitsProcessor):
    """Uncertainty-aware selective contrastive decoding (arXiv:2409.05923).

    The second stream reads the prompt without its examples. At a step where no row is unsure it is not
    asked, and costs nothing; it catches up in one chunk when it is asked again.

    Args:
        lame: logits under the lame prompt.
        applies: which rows have a lame prompt of their own, ``rows of tokens -> bool [rows]``; None: all.
        trace: where gate values are noted.
    """

    @checked
    def __init__(
        self,
        *,
        rho: Annotated[float, number("contrast strength", ge=0, neutral=0)] = 0.7,
        gate: Annotated[float, number("contrast rows whose confidence is at most this", ge=0, le=1, neutral=0)] = 0.894,
        head: Annotated[float, number("keep tokens of at least this multiple of 1 / vocabulary", ge=0)] = 2 / 3,
        form: Annotated[contrast.Form, option("diff: log(p - rho q); ratio: log p - rho log q")] = "diff",
        measure: Annotated[contrast.Confidence, option("what confidence is")] = "norm",
        lame: NextLogits,
        applies: Annotated[Callable[[Tensor], Tensor] | None, Resource()] = None,
        trace: Annotated[Trace | None, Resource()] = None,
    ) -> None:
        self.rho, self.gate, self.head, self.form, self.measure = rho, gate, head, form, measure
        self.lame, self.applies, self.trace = lame, applies, trace
        self.streams: tuple[NextLogits, ...] = () if is_neutral(rho, 0) or is_neutral(gate, 0) else (lame,)

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        lame: Annotated[
            Texts | None,
            option("the lame prompt, one for all or one a prompt; None: the prompt without its examples"),
        ] = None,
        **strength: Any,
    ) -> USCD:
        """Build the lame prompts and read along under them."""
        own = _lame_prompts(binding, lame)
        same = torch.tensor([ids == given for ids, given in zip(own, binding.own_prompts(), strict=True)])
        differs = ~same.to(binding.model.device)

        def applies(input_ids: Tensor) -> Tensor:
            return differs.to(input_ids.device)[binding.prompts.rows(input_ids)]

        processor = cls(
            lame=binding.reader(own, label="lame prompt"),
            applies=applies if bool(same.any()) else None,
            trace=binding.trace,
            **strength,
        )
        if bool(same.all()):
            processor.streams = ()
        return processor

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores, unsure rows contrasted to log-probabilities, ``[rows, vocab]``."""
        if is_neutral(self.rho, 0) or is_neutral(self.gate, 0):
            return scores
        sure = contrast.confidence(scores, self.measure)  # [rows]
        fired = sure <= self.gate
        if self.applies is not None:
            fired = fired & self.applies(input_ids)
        if self.trace is not None:
            self.trace.note(gate=sure, fired=fired)
            self.trace.count_fired("uscd", fired)
        second = read_where(self.lame, fired, input_ids)
        if second is None:
            return scores
        second = fit(second, scores.shape[-1])
        contrasted = contrast.uscd_contrast(scores, second, rho=self.rho, head=self.head, form=self.form)
        return torch.where(fired[:, None], contrasted, scores)


def _lame_prompts(binding: Binding, given: Texts | None) -> list[list[int]]:
    """Token ids of the lame prompts, as given or by stripping examples; notices say what was removed."""
    prompts, own = binding.prompts, binding.own_prompts()
    if given is not None:
        return [prompts.encode(binding.tokenizer, text) for text in binding.one_each("uscd", "lame", given)]
    for place, (text, chat) in enumerate(zip(prompts.texts, prompts.messages, strict=True)):
        if chat is None:
            stripped = strip_examples(text)
            lame, removed = stripped.text, stripped.removed
        else:
            messages, removed = strip_messages([dict(message) for message in chat])
            lame = apply_template(binding.tokenizer, messages) if removed else text
        if removed:
            own[place] = prompts.encode(binding.tokenizer, lame) or own[place]
            binding.trace.notices.append(
                f"uscd: lame prompt {place} drops {len(removed)} piece(s): " + " | ".join(removed)
            )
        else:
            binding.trace.notices.append(f"uscd: prompt {place} has no examples to drop; its rows stay as they are")
    return own
