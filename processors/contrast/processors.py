"""CFG, contrastive decoding and DExperts as logits processors; `USCD` and `CAD` have modules of their own.

The formulas are in `logitkit.processors.contrast.formulas`. A processor adds the source of the second stream and
reads that stream only when the formula needs it. The attribute ``streams`` lists the second streams that the
processor will read, so that they can be computed in the generating model's forward pass. No registry is needed: a
second stream is any callable that maps rows of tokens ``[rows, length]`` to logits ``[rows, vocab]``.
"""

from __future__ import annotations

from typing import Annotated, Any

from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ParameterError
from logitkit.params import checked, is_neutral, number, option, whole
from logitkit.processors.contrast.formulas import cfg, contrastive, dexperts
from logitkit.processors.contrast.tilting import Tilt
from logitkit.processors.engine.aligned_stream import StreamAlignment, aligned_reader
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.other_prompts import PromptsOrChats, other_prompts
from logitkit.processors.engine.scores import at_width, within_width
from logitkit.processors.engine.second_inputs import second_inputs
from logitkit.processors.engine.streams import StreamLike, as_stream
from logitkit.processors.model_facts import is_same_model

Align = Annotated[
    StreamAlignment | None,
    option(
        "alignment of models with another tokenizer; bytes: the generating model is a ByteModel, and so is every other "
        "model, which is made of it if it is over tokens; None: the tokenizers must be the same"
    ),
]


class CFG(LogitsProcessor):
    """Classifier-free guidance, arXiv:2306.17806, as `cfg` computes it.

    Args:
        unconditional: the stream without the prompt, or with a negative prompt.
        scale: guidance scale, >= 0; at 1 the scores are returned unchanged.
        divergence: see `cfg`.

    Raises:
        ParameterError: the scale is outside its range.

    Example:
        >>> import torch
        >>> processor = CFG(unconditional=lambda rows: torch.tensor([[0.4, 0.6]]).log(), scale=2.0)
        >>> processor(torch.tensor([[7]]), torch.tensor([[0.6, 0.4]]).log()).exp()
        tensor([[0.7714, 0.2286]])
    """

    order = ("scale", "negative", "negative_inputs")

    @checked
    def __init__(
        self,
        *,
        unconditional: StreamLike,
        scale: Annotated[float, number("guidance scale; above 1: follow the prompt more", ge=0, neutral=1)] = 1.5,
        divergence: Annotated[
            Tilt, option("what the guidance pays for; forward_kl leaves each token a share however large the scale")
        ] = "reverse_kl",
    ) -> None:
        self.unconditional, self.scale, self.divergence = as_stream(unconditional), scale, divergence
        self.streams = () if is_neutral(scale, 1) else (self.unconditional,)

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        negative: Annotated[
            PromptsOrChats | None,
            option(
                "negative prompt or chat, one for all prompts or one for each; system messages alone replace those of "
                "the prompt's chat; None: the last token of the prompt alone"
            ),
        ] = None,
        negative_inputs: Annotated[
            str | None,
            option(
                "name under which bind gets the inputs of the negative prompt: an encoding, or distorted pixel_values "
                "for the images of the prompt"
            ),
        ] = None,
        scale: float,
        divergence: Tilt,
    ) -> CFG:
        """Build the processor whose second stream has the negative prompt, or negative inputs such as images.

        Raises:
            ParameterError: the number of negative prompts is neither one nor the number of prompts; or both a
                negative prompt and negative inputs.
        """
        if negative_inputs is not None:
            if negative is not None:
                raise ParameterError("cfg", "negative_inputs", "None where negative is given", negative_inputs)
            own, inputs = second_inputs(binding, "cfg", "negative_inputs", negative_inputs)
            reader = binding.reader(own, label="negative inputs", inputs=inputs)
            return cls(unconditional=reader, scale=scale, divergence=divergence)
        if negative is None:
            negative_prompts = [ids[-1:] for ids in binding.own_prompts()]
        else:
            negative_prompts = other_prompts(binding, "cfg", "negative", negative)
        if negative_prompts == binding.own_prompts():
            binding.no_effect["cfg"] = (
                "the prompt is a single token, which is the negative prompt too"
                if negative is None
                else "every negative prompt is the prompt itself",
                "give another text as negative, or leave cfg out",
            )
        reader = binding.reader(negative_prompts, label="negative prompt")
        return cls(unconditional=reader, scale=scale, divergence=divergence)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return guided log-probabilities, ``[rows, vocab]``."""
        if is_neutral(self.scale, 1):
            return scores
        unconditional = self.unconditional(input_ids)
        scores = within_width(scores, unconditional)
        fitted = at_width(unconditional, scores.shape[-1])
        return cfg(scores, fitted, scale=self.scale, divergence=self.divergence).to(scores.dtype)


class Contrastive(LogitsProcessor):
    """Contrastive decoding, arXiv:2210.15097, as `contrastive` computes it; the generating model is the expert.

    Args:
        amateur: the stream of the weak model under the same prompt.
        beta: contrast strength, >= 0; at 0 the scores are returned unchanged.
        alpha: plausibility threshold, above 0, at most 1.
        temperature: of the amateur, above 0.

    Raises:
        ParameterError: a parameter is outside its range.

    Example:
        >>> import torch
        >>> amateur = lambda rows: torch.tensor([[0.25, 0.6, 0.15]]).log()
        >>> processor = Contrastive(amateur=amateur, beta=1.0, alpha=0.6)
        >>> processor(torch.tensor([[7]]), torch.tensor([[0.5, 0.3, 0.2]]).log()).exp()
        tensor([[0.8000, 0.2000, 0.0000]])
    """

    @checked
    def __init__(
        self,
        *,
        amateur: StreamLike,
        beta: Annotated[float, number("contrast strength", ge=0, neutral=0)] = 0.5,
        alpha: Annotated[
            float, number("plausibility threshold, as a share of the largest probability", gt=0, le=1)
        ] = 0.1,
        temperature: Annotated[float, number("temperature of the amateur", gt=0)] = 1.0,
    ) -> None:
        self.amateur, self.beta, self.alpha, self.temperature = as_stream(amateur), beta, alpha, temperature
        self.streams = () if is_neutral(beta, 0) else (self.amateur,)

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        amateur: Annotated[str, option("the weak model: a name passed to bind, a hub id, or a folder")],
        beta: float,
        alpha: float,
        temperature: float,
        window: Annotated[
            int | None, whole("last tokens of the prompt that the amateur reads; None: the whole prompt", ge=1)
        ] = None,
        align: Align = None,
    ) -> Contrastive:
        """Build the processor whose second stream is the amateur under the same prompt, or under its last tokens.

        Raises:
            ModelError: the amateur has another tokenizer.
        """
        strengths = {"beta": beta, "alpha": alpha, "temperature": temperature}
        if align is not None:
            if window is not None:
                raise ParameterError("contrastive", "window", "None where align is given", window)
            stream = aligned_reader(binding, "contrastive", amateur, align)
            _report_itself(binding, getattr(stream, "model", None), temperature)
            return cls(amateur=stream, **strengths)
        model = binding.model_with_same_vocabulary(amateur, "contrastive")
        prompts = [ids if window is None else ids[-window:] for ids in binding.own_prompts()]
        if prompts == binding.own_prompts():
            _report_itself(binding, model, temperature)
        return cls(amateur=binding.reader(prompts, model, label=amateur), **strengths)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return contrasted log-probabilities, ``[rows, vocab]``."""
        if is_neutral(self.beta, 0):
            return scores
        amateur = self.amateur(input_ids)
        scores = within_width(scores, amateur)
        fitted = at_width(amateur, scores.shape[-1])
        strengths = {"beta": self.beta, "alpha": self.alpha, "temperature": self.temperature}
        return contrastive(scores, fitted, **strengths).to(scores.dtype)


def _report_itself(binding: Binding, amateur: Any, temperature: float) -> None:
    """Report that contrastive has no effect if the amateur, under the prompt of the call, is the generating model."""
    if is_same_model(amateur, binding.model) and is_neutral(temperature, 1):
        reason = "contrastive compares the model with itself, and only flattens and cuts its distribution"
        binding.no_effect["contrastive"] = (reason, "name a weaker model, or leave contrastive out")


class DExperts(LogitsProcessor):
    """DExperts, arXiv:2105.03023, and proxy tuning, arXiv:2401.08565, as `dexperts` computes them.

    The generating model is the base.

    Args:
        expert: the stream of the tuned small model under the same prompt.
        antiexpert: the stream of the untuned (or anti-tuned) small model under the same prompt.
        alpha: strength; at 0 the scores are returned unchanged; a negative value exchanges the two small models.
        divergence: see `dexperts`.

    Raises:
        ParameterError: the strength is not a finite number.

    Example:
        >>> import torch
        >>> expert, antiexpert = (torch.tensor([[p, 1 - p]]).log() for p in (0.8, 0.5))
        >>> processor = DExperts(expert=lambda rows: expert, antiexpert=lambda rows: antiexpert)
        >>> processor(torch.tensor([[7]]), torch.tensor([[0.5, 0.5]]).log()).exp()
        tensor([[0.8000, 0.2000]])
    """

    @checked
    def __init__(
        self,
        *,
        expert: StreamLike,
        antiexpert: StreamLike,
        alpha: Annotated[float, number("strength; a negative value exchanges expert and antiexpert", neutral=0)] = 1.0,
        divergence: Annotated[
            Tilt, option("what the guidance pays for; forward_kl leaves each token a share however large the scale")
        ] = "reverse_kl",
    ) -> None:
        self.expert, self.antiexpert, self.alpha = as_stream(expert), as_stream(antiexpert), alpha
        self.divergence = divergence
        self.streams = () if is_neutral(alpha, 0) else (self.expert, self.antiexpert)

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        expert: Annotated[str, option("the tuned small model: a name passed to bind, a hub id, or a folder")],
        antiexpert: Annotated[
            str, option("the untuned (or anti-tuned) small model: a name passed to bind, a hub id, or a folder")
        ],
        alpha: float,
        divergence: Tilt,
        align: Align = None,
    ) -> DExperts:
        """Build the processor whose second streams are the two small models under the same prompt.

        Raises:
            ModelError: a small model has another tokenizer.
        """
        if is_same_model(*(binding.model_named(name) for name in (expert, antiexpert))):
            way_out = "name the tuned and the untuned model, or leave dexperts out"
            binding.no_effect["dexperts"] = ("expert and antiexpert are one model", way_out)
        if align is not None:
            read = [aligned_reader(binding, "dexperts", name, align) for name in (expert, antiexpert)]
            return cls(expert=read[0], antiexpert=read[1], alpha=alpha, divergence=divergence)
        models = [binding.model_with_same_vocabulary(name, "dexperts") for name in (expert, antiexpert)]
        prompts = binding.own_prompts()
        tuned, untuned = (
            binding.reader(prompts, model, label=name) for model, name in zip(models, (expert, antiexpert), strict=True)
        )
        return cls(expert=tuned, antiexpert=untuned, alpha=alpha, divergence=divergence)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return shifted log-probabilities, ``[rows, vocab]``."""
        if is_neutral(self.alpha, 0):
            return scores
        width, read = scores.shape[-1], [stream(input_ids) for stream in (self.expert, self.antiexpert)]
        scores = within_width(scores, *read)
        expert, antiexpert = (at_width(logits, width) for logits in read)
        return dexperts(scores, expert, antiexpert, alpha=self.alpha, divergence=self.divergence).to(scores.dtype)
