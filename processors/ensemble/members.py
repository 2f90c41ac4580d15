"""The members of an ensemble: other models that read along, each with its own tokenizer and its own prompt.

What a member thinks of the next token is translated into the main vocabulary by an `Alignment`; a member with
the main tokenizer needs none. A new way to translate is one more method of `align`, or a
``read`` that already answers in the main vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from logitkit.errors import ModelError, ParameterError, PromptError
from logitkit.processors.alignment.alignment import Alignment
from logitkit.processors.alignment.alignment_vocabulary import AlignmentVocabulary
from logitkit.processors.alignment.dispatch import align
from logitkit.processors.byte_level.ensemble import byte_helpers
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.log_probabilities import log_probabilities
from logitkit.processors.engine.prompts import Prompts, apply_template
from logitkit.processors.engine.reader import Reader
from logitkit.processors.engine.scores import fit
from logitkit.processors.engine.streams import Stream
from logitkit.processors.model_facts import context_length
from logitkit.processors.tokens.vocabulary import fingerprint

UNITE_TOPK = 10  # tokens of each model that make up the union, as in UniTE
EVA_TOPK = 320  # tokens of a helper that are translated by embeddings, as in EVA
Texts = str | list[str]


@dataclass(frozen=True, eq=False, kw_only=True)
class Member:
    """A model that reads along.

    Attributes:
        name: as the chain calls it.
        read: rows of main tokens to fp32 logits in its own vocabulary, ``[rows, own vocab]``.
        alignment: into the main vocabulary; None: it is the main vocabulary.
        same: it is the generating model itself under the same prompts, and adds nothing.
    """

    name: str
    read: Callable[[Tensor], Tensor]
    alignment: Alignment | None = None
    same: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Reading:
    """A model named in a chain, ready to read along."""

    name: str
    model: Any
    tokenizer: Any
    read: Stream
    foreign: bool
    same: bool


@dataclass(frozen=True, eq=False)
class Bounded:
    """A reader that says when its model runs out of context, before the model does."""

    reader: Reader
    prompts: Prompts
    context: int | None
    label: str
    fusable: bool = False

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the reader's logits, ``[rows, vocab]``.

        Raises:
            ModelError: the rows are longer than the model's context.
        """
        self._check(rows)
        return self.reader(rows)

    def positions(self, rows: Tensor, count: int) -> Tensor:
        """Return the reader's logits after each of the last ``count`` prefixes, ``[rows, count, vocab]``."""
        self._check(rows)
        return self.reader.positions(rows, count)

    def where(self, wanted: Tensor, rows: Tensor) -> Tensor | None:
        """Return the reader's logits if any row wants them, else None without a forward."""
        self._check(rows)
        return self.reader.where(wanted, rows)

    def _check(self, rows: Tensor) -> None:
        """Refuse rows that are longer than the model's context."""
        longest = self.reader.width + rows.shape[1] - self.prompts.width
        if self.context is not None and longest > self.context:
            raise ModelError(
                f"{self.label}: a row must be at most {self.context} tokens, its context, got {longest}; generate "
                "fewer tokens, shorten the prompt, or leave this model out"
            )


def readings(
    binding: Binding, owner: str, models: Sequence[str], prompts: Mapping[str, Texts] | None = None
) -> list[Reading]:
    """Find the models and give each a reader under its own prompt.

    A chat is written in each model's own template, system prompt included; a text gets its own begin token.

    Args:
        prompts: own texts of some models, by name, one for all prompts of the call or one for each.

    Raises:
        ModelError, PromptError, ParameterError, UnknownNameError: before any model runs.
    """
    strange = sorted(set(prompts or {}) - set(models))
    if strange:
        raise ParameterError(owner, "prompts", f"given for models of the ensemble ({', '.join(models)})", strange[0])
    return [_reading(binding, owner, name, (prompts or {}).get(name)) for name in models]


def members(
    binding: Binding,
    owner: str,
    models: Sequence[str],
    alignments: str | Sequence[str],
    prompts: Mapping[str, Texts] | None = None,
) -> list[Member]:
    """Find the models, give each a reader, and align its vocabulary; the trace says how much of it.

    Args:
        alignments: a method, a name passed to `bind`, or a ``.safetensors`` file; one for all or one a model.
            ``bytes``, for all: the generating model is a `ByteModel`, and one is made of each other model.

    Raises:
        FileFormatError, ModelError, PromptError, ParameterError, UnknownNameError: before any model runs.
    """
    each = [alignments] * len(models) if isinstance(alignments, str) else list(alignments)
    if len(each) != len(models):
        raise ParameterError(owner, "align", f"one alignment, or {len(models)} (one a model)", alignments)
    if "bytes" in each:
        return _over_bytes(binding, owner, models, each, prompts)
    found = []
    for reading, how in zip(readings(binding, owner, models, prompts), each, strict=True):
        alignment = _alignment(binding, owner, reading, how) if reading.foreign else None
        found.append(Member(name=reading.name, read=reading.read, alignment=alignment, same=reading.same))
    united = [member.alignment.method == "unite" for member in found if member.alignment is not None]
    if any(united) and not all(united):
        raise ParameterError(owner, "align", "'unite' for all models or for none", alignments)
    return found


def _over_bytes(
    binding: Binding, owner: str, models: Sequence[str], each: Sequence[str], prompts: Mapping[str, Texts] | None
) -> list[Member]:
    """Members that share the alphabet of the generating model, a `ByteModel`: nothing is lost in translation."""
    if set(each) != {"bytes"}:
        raise ParameterError(owner, "align", "'bytes' for all models or for none", list(each))
    if prompts:
        raise ParameterError(owner, "prompts", "left out with align='bytes': all models read the same bytes", prompts)
    own = binding.own_prompts()
    return [
        Member(name=name, read=binding.reader(own, model, label=name), same=model is binding.model)
        for name, model in byte_helpers(binding, owner, models)
    ]


def opinions(
    input_ids: Tensor, scores: Tensor, members: Sequence[Member], *, topk: int = 0
) -> tuple[Tensor, list[Tensor]]:
    """Next-token probabilities of the main model and of each member, in the main vocabulary.

    What the scores make impossible is impossible for all. A member's row may sum to less than 1: what its alignment
    cannot translate is lost.

    Args:
        input_ids: ``[rows, length]``.
        scores: of the main model, ``[rows, vocab]``.
        topk: likeliest tokens of each model that count; 0: all, but `UNITE_TOPK` with ``unite`` and `EVA_TOPK`
            of a helper that is aligned by ``embedding``.

    Returns:
        fp32, ``[rows, vocab]`` each.
    """
    logp = log_probabilities(scores)
    possible = logp > -torch.inf
    logits = [member.read(input_ids) for member in members]
    if any(member.alignment is not None and member.alignment.reverse is not None for member in members):
        return _united(logp, logits, members, topk or UNITE_TOPK)
    said = [_translated(own, member, topk, logp.shape[-1]) for own, member in zip(logits, members, strict=True)]
    main = logp if not 0 < topk < logp.shape[-1] else _kept(logp, topk)
    return main.softmax(-1), [p * possible for p in said]


def _translated(logits: Tensor, member: Member, topk: int, width: int) -> Tensor:
    """Probabilities of a member in the main vocabulary, ``[rows, width]``."""
    if member.alignment is None:
        logits = fit(logits, width)
        return (_kept(logits, topk) if 0 < topk < width else logits).softmax(-1)
    topk = EVA_TOPK if topk == 0 and member.alignment.method == "embedding" else topk
    if 0 < topk < logits.shape[-1]:
        best, ids = logits.topk(topk, dim=-1)
        return _wide(member.alignment.translate(best.softmax(-1), ids), width)
    return _wide(member.alignment.translate(logits.softmax(-1)), width)


def _united(
    logp: Tensor, logits: Sequence[Tensor], members: Sequence[Member], topk: int
) -> tuple[Tensor, list[Tensor]]:
    """UniTE: every model's own logits over the union of all models' likeliest tokens."""
    width = logp.shape[-1]
    union = _likeliest(logp, topk)
    answers = []
    for own, member in zip(logits, members, strict=True):
        if member.alignment is None or member.alignment.reverse is None:
            own = fit(own, width)
            union = union | _likeliest(own, topk)
        else:
            best, ids = own.topk(min(topk, own.shape[-1]), dim=-1)
            union = union | (_wide(member.alignment.translate(torch.ones_like(best), ids), width) > 0)
            back = member.alignment.reverse
            own = fit(own[:, back.clamp_min(0)].masked_fill(back < 0, -torch.inf), width)
        answers.append(own)
    union = union & (logp > -torch.inf)
    spoken = [own.masked_fill(~union, -torch.inf) for own in answers]
    heard = [(own > -torch.inf).any(-1, keepdim=True) for own in spoken]
    said = [torch.where(some, own, 0).softmax(-1) * some for own, some in zip(spoken, heard, strict=True)]
    return logp.masked_fill(~union, -torch.inf).softmax(-1), said


def _kept(logits: Tensor, topk: int) -> Tensor:
    """Logits of the likeliest tokens, -inf elsewhere."""
    best, ids = logits.topk(topk, dim=-1)
    return torch.full_like(logits, -torch.inf).scatter_(-1, ids, best)


def _likeliest(logits: Tensor, topk: int) -> Tensor:
    """Which tokens are among the likeliest, ``[rows, vocab]``."""
    return _kept(logits, min(topk, logits.shape[-1])) > -torch.inf


def _wide(p: Tensor, width: int) -> Tensor:
    """Probabilities at the width of the scores: an alignment has the width of the model's config."""
    missing = width - p.shape[-1]
    return torch.nn.functional.pad(p, (0, missing)) if missing > 0 else p[:, :width]


def _reading(binding: Binding, owner: str, name: str, given: Texts | None) -> Reading:
    """Find one model and read along with it."""
    model, tokenizer = binding.model_named(name), binding.tokenizer_named(name)
    own = _own_prompts(binding, owner, name, tokenizer, given)
    label = f"{owner}: model {name!r}"
    alike = fingerprint(tokenizer) == fingerprint(binding.tokenizer)
    if not alike or model.config.is_encoder_decoder != binding.prompts.in_encoder:
        reader = binding.foreign_reader(own, model, tokenizer, label=name)
        return Reading(name=name, model=model, tokenizer=tokenizer, read=reader, foreign=not alike, same=False)
    context = None if binding.prompts.in_encoder else context_length(model)
    read = Bounded(binding.reader(own, model, label=name), binding.prompts, context, label)
    same = model is binding.model and own == binding.own_prompts()
    return Reading(name=name, model=model, tokenizer=tokenizer, read=read, foreign=False, same=same)


def _own_prompts(binding: Binding, owner: str, name: str, tokenizer: Any, given: Texts | None) -> list[list[int]]:
    """Token ids of a model's own prompts."""
    prompts = binding.prompts
    if given is not None:
        texts = [given] * len(prompts) if isinstance(given, str) else given
        if len(texts) != len(prompts) or not all(texts):
            rule = f"one text, or {len(prompts)} (one a prompt), none empty"
            raise ParameterError(owner, f"prompts[{name!r}]", rule, given)
        return [_encoded(owner, name, tokenizer, text) for text in texts]
    if any(chat is not None for chat in prompts.messages):
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError(
                f"{owner}: model {name!r} must have a chat template to read chat messages; "
                f"give it a prompt of its own: prompts={{{name!r}: '...'}}"
            )
        written = [apply_template(tokenizer, chat or ()) for chat in prompts.messages]
        return [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in written]
    if prompts.adds_specials:
        return [_encoded(owner, name, tokenizer, text) for text in prompts.texts]
    if fingerprint(tokenizer) == fingerprint(binding.tokenizer):
        return binding.own_prompts()
    binding.trace.notices.append(f"{owner}: model {name!r} reads the encoded prompts as text, without special tokens")
    rows = binding.own_prompts()
    return [_encoded(owner, name, tokenizer, binding.tokenizer.decode(ids, skip_special_tokens=True)) for ids in rows]


def _encoded(owner: str, name: str, tokenizer: Any, text: str) -> list[int]:
    """A text as a model reads it from the start.

    Raises:
        PromptError: no tokens.
    """
    ids = list(tokenizer(text)["input_ids"])
    if not ids:
        raise PromptError(f"{owner}: the prompt of model {name!r} must have tokens, got {text!r}; give it text")
    return ids


def _alignment(binding: Binding, owner: str, reading: Reading, how: str) -> Alignment:
    """Take an alignment passed to `bind`, read one from a file, or build it; say what it covers."""
    helper = AlignmentVocabulary.of(reading.model, reading.tokenizer)
    main = AlignmentVocabulary.of(binding.model, binding.tokenizer)
    if how in binding.resources:
        found = binding.resource(how)
        if not isinstance(found, Alignment):
            raise ParameterError(owner, "align", "an Alignment", found)
        found.check(helper, main, owner)
    elif how.endswith(".safetensors"):
        found = Alignment.load(Path(how))
        found.check(helper, main, owner)
    else:
        folder = None if binding.cache is None else binding.cache / "alignments"
        found = align(how, helper, main, cache=folder)
    told = ", ".join(f"{count} {kind}" for kind, count in found.coverage().items())
    binding.trace.notices.append(f"{owner}: tokens of {reading.name} by {found.method}: {told}")
    return found.to(binding.model.device)
