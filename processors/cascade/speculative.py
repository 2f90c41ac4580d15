"""Speculative cascades: the small model drafts several tokens, the large model checks them in one forward.

Source: arXiv:2405.19261, section 4. A token-level cascade needs a large forward at every token where its rule
compares both models; here a block of drafted tokens shares one forward. The emitted text has the same
distribution ``pi`` as that cascade: drafts follow ``q``, are accepted with probability min(1, pi / q) and are
otherwise replaced by a draw from the residual. A block that was accepted entirely is followed by one more token.

Departure: that additional token is drawn from ``pi``. The released notebook draws it from ``p``, and then the last
token of such a block would not follow ``pi``.

The class is a callable for ``generate(custom_generate=...)`` and uses public transformers API only. Assisted
decoding in transformers cannot express these cascades: its acceptance rule is fixed to the large model's own
distribution, and the same logits processors apply to the draft model.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from logitkit.errors import ModeError, ModelError
from logitkit.params import Resource, checked, number, option, whole
from logitkit.processors.cascade import rules
from logitkit.processors.cascade.rules import TokenRule
from logitkit.processors.cascade.verification import acceptance_probability, residual_distribution
from logitkit.processors.engine.prompt_inputs import refuse_prepared_inputs
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.reader import Reader
from logitkit.processors.engine.scores import fit
from logitkit.processors.engine.shared_vocabulary import SharedIdsModel, check_prompts
from logitkit.processors.engine.trace import Trace
from logitkit.processors.model_facts import vocabulary_size
from logitkit.processors.tokens.token_agreement import TokenAgreement, stated_tokenizer


class SpeculativeCascade:
    """A decoding loop for ``model.generate(custom_generate=...)``; the generating model is the small one.

    Temperature, top-k, top-p and other logits processors of that `generate` call shape both sampling
    distributions, q and p, each by itself: top-p keeps other tokens of p than of q. The rule compares the
    distributions that the models return. Without sampling the sampling distributions are greedy.

    Args:
        large: the large model, with the tokenizer of the small one. The models may pad their vocabularies differently,
            and one of them may have added tokens; an id that only one of them can write is never generated.
        rule, alpha: deferral rule and tolerance, as in `logitkit.processors.cascade.rules.accepted_tokens`.
            ``token_v2`` and ``token_v3`` with alpha 0 and without sampling give the large model's greedy text.
        draft_length: number of tokens drafted before each forward of the large model.
        tokenizers: the tokenizers of the generating and of the large model. None: where the vocabularies have
            different widths, the tokenizers are loaded from the models' folders or hub ids.
        trace: receives, under ``speculative``, the means ``accepted`` (share of accepted drafts) and
            ``tokens per check``.

    Raises:
        ParameterError: a parameter is outside its range.

    Source: arXiv:2405.19261, section 4; the module docstring states the departure.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> small, large, ids = tiny_model(), tiny_model(1), tiny_tokenizer()("a prompt", return_tensors="pt")["input_ids"]
    >>> cascade = SpeculativeCascade(large=large, rule="token_v3", alpha=0.0, draft_length=3)
    >>> settings = {"max_new_tokens": 8, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    >>> text = small.generate(ids, custom_generate=cascade, **settings)
    >>> bool((text == large.generate(ids, **settings)).all())
    True
    """

    @checked
    def __init__(
        self,
        *,
        large: Annotated[Any, Resource()],
        rule: Annotated[TokenRule, option("deferral rule: when a drafted token is accepted")] = "token_v3",
        alpha: Annotated[float, number("tolerance for the small model; 1: keep the small model", ge=0, le=1)] = 0.3,
        draft_length: Annotated[int, whole("tokens drafted before each forward of the large model", ge=1)] = 4,
        tokenizers: Annotated[tuple[Any, Any] | None, Resource()] = None,
        trace: Annotated[Trace | None, Resource()] = None,
    ) -> None:
        self.large, self.rule, self.alpha = large, rule, alpha
        self.draft_length, self.trace = draft_length, trace or Trace()
        self.tokenizers = tokenizers
        self._agreement: tuple[Any, TokenAgreement] | None = None  # with the model of the last call

    # Over 40 lines: the signature is that of `custom_generate`, and the docstring documents every argument.
    @torch.no_grad()
    def __call__(
        self,
        model: Any,
        input_ids: Tensor,
        logits_processor: Any = None,
        stopping_criteria: Any = None,
        generation_config: Any = None,
        **model_kwargs: Any,
    ) -> Tensor:
        """Generate a continuation; `generate` calls this method with the arguments that it has prepared.

        Args:
            model: the small model.
            input_ids: the prompt, ``[1, length]``.
            logits_processor, stopping_criteria, generation_config: as prepared by `generate`.
            model_kwargs: arguments of the model's forward that `generate` has prepared. Only ``attention_mask`` is
                used, whose zeros mark padding of the prompt, ``[1, length]``. It cannot be a named parameter:
                `generate` would pass it twice. Images and other inputs besides tokens are refused.

        Returns:
            Prompt and continuation, ``[1, longer]``.

        Raises:
            ModeError: several rows, beam search, ``return_dict_in_generate``, or inputs besides tokens.
            ModelError: an id stands for other text in the two models; or their vocabularies have different widths, and
                their tokenizers are not known.
            PromptError: the prompt holds a token that one of the models lacks.
        """
        _check_mode(input_ids, generation_config)
        refuse_prepared_inputs("SpeculativeCascade", model_kwargs)
        agreement = self._agreement_with(model)
        prompts = _single_prompt(input_ids, model_kwargs.get("attention_mask"))
        own = [prompts.tokens(0)]
        check_prompts(own, agreement, "SpeculativeCascade: the large model")
        models = [
            each if agreement.complete else SharedIdsModel(each, agreement.shared) for each in (model, self.large)
        ]
        small, large = (Reader(each, own, prompts) for each in models)
        self.trace.readers |= {"small": small, "large": large}
        sampler = _Sampler(logits_processor or LogitsProcessorList(), bool(generation_config.do_sample))
        ids, stopped = input_ids, False
        while not stopped:
            draft = _draft(ids, small, sampler, self._draft_count(ids, generation_config))
            # Stopping criteria of `generate` expect to be called after every token.
            for token in self._verified(draft, large, sampler).tolist():
                ids = torch.cat([ids, torch.tensor([[token]], device=ids.device)], dim=1)
                stopped = bool(stopping_criteria(ids, None).all())
                if stopped:
                    break
        return ids

    def _verified(self, draft: _Draft, large: Reader, sampler: _Sampler) -> Tensor:
        """Check a draft in one forward of the large model; return the accepted tokens and one more, ``[tokens]``."""
        count = len(draft.tokens)
        logits = fit(large.positions(draft.ids, count + 1)[0], draft.sampling.shape[-1])  # [count + 1, vocab]
        start = draft.ids.shape[1] - count
        p = torch.cat([sampler.distribution(draft.ids[:, : start + n], row[None]) for n, row in enumerate(logits)])
        # p and q each keep the tokens of their own warpers. A forced token that the large model lacks leaves p empty.
        p = torch.where((p == -torch.inf).all(-1, keepdim=True), draft.sampling, p)
        pi = rules.cascade_distribution(
            self.rule,
            draft.logp,
            logits.log_softmax(-1),
            alpha=self.alpha,
            sampling_small=draft.sampling,
            sampling_large=p,
        )
        kept = _accepted_count(draft.sampling[:count], pi[:count], draft.tokens)
        if count:
            self.trace.average("speculative", "accepted", (torch.arange(count) < kept).float())
        self.trace.average("speculative", "tokens per check", torch.tensor([kept + 1.0]))
        at = slice(kept, kept + 1)
        last = pi[at].exp() if kept == count else residual_distribution(draft.sampling[at], pi[at])
        return torch.cat([draft.tokens[:kept], sampler.draw(last)[0]])

    def _draft_count(self, ids: Tensor, config: Any) -> int:
        """Return how many tokens to draft; every check emits one token more than it accepts."""
        if config.max_length is None:
            return self.draft_length
        remaining = int(config.max_length) - ids.shape[1]
        return max(0, min(self.draft_length, remaining - 1))

    def _agreement_with(self, model: Any) -> TokenAgreement:
        """Return how the ids of the generating and of the large model agree.

        Raises:
            ModelError: the models cannot be paired.
        """
        if self._agreement is None or self._agreement[0] is not model:
            widths, tokenizers = [vocabulary_size(each) for each in (model, self.large)], self.tokenizers
            if tokenizers is None and widths[0] != widths[1]:
                tokenizers = stated_tokenizer(model), stated_tokenizer(self.large)
                if None in tokenizers:
                    raise ModelError(
                        f"SpeculativeCascade: large must have the vocabulary of the generating model ({widths[0]} "
                        f"ids), got {widths[1]} ids and no tokenizers; pass tokenizers=(tokenizer, large_tokenizer), "
                        "or read both as byte models"
                    )
            first, second = tokenizers or (None, None)
            agreement = TokenAgreement.of((model, first), (self.large, second))
            agreement.check("SpeculativeCascade", "large", way_out="read both as byte models")
            self._agreement = model, agreement
        return self._agreement[1]


def _check_mode(input_ids: Tensor, config: Any) -> None:
    """Refuse unsupported modes of `generate`."""
    if input_ids.shape[0] != 1 or (config.num_beams or 1) > 1 or (config.num_return_sequences or 1) > 1:
        raise ModeError(
            "SpeculativeCascade: rows must be 1, since each row accepts a different number of drafts, got "
            f"{input_ids.shape[0]}; generate the rows one at a time, or use the cascade processor"
        )
    if config.return_dict_in_generate:
        raise ModeError("SpeculativeCascade: return_dict_in_generate must be off, only ids are returned; omit it")


class _Draft(NamedTuple):
    """Tokens that the small model has drafted.

    Attributes:
        ids: prompt, continuation and drafted tokens, ``[1, length]``.
        tokens: the drafted tokens, ``[count]``.
        logp: the small model's log-probabilities at each drafted token and after the last, ``[count + 1, vocab]``.
        sampling: the sampling distributions at the same positions, as log-probabilities.
    """

    ids: Tensor
    tokens: Tensor
    logp: Tensor
    sampling: Tensor


class _Sampler:
    """Sampling of one `generate` call: its logits processors, then a draw or the most likely token."""

    def __init__(self, processors: Any, do_sample: bool) -> None:
        self.processors, self.greedy = processors, not do_sample

    def distribution(self, ids: Tensor, logits: Tensor) -> Tensor:
        """Return the sampling distribution after these tokens as log-probabilities, ``[1, vocab]``.

        All are -inf where the processors leave no token that the logits allow.
        """
        scores = self.processors(ids, logits.clone()).float()
        possible = (scores > -torch.inf).any(-1, keepdim=True)
        logp = torch.where(possible, scores.log_softmax(-1), -torch.inf)
        return rules.tempered(logp, 0) if self.greedy and bool(possible) else logp

    def draw(self, probabilities: Tensor) -> Tensor:
        """Return a token, ``[1, 1]``."""
        return probabilities.argmax(-1, keepdim=True) if self.greedy else torch.multinomial(probabilities, 1)


def _draft(ids: Tensor, small: Reader, sampler: _Sampler, count: int) -> _Draft:
    """Draft ``count`` tokens after these ids, ``[1, length]``."""
    drafted, logits, sampling = ids, [], []
    # The token that follows a fully accepted block needs the small model's distribution after the last draft.
    for drawn in range(count + 1):
        logits.append(small(drafted))
        sampling.append(sampler.distribution(drafted, logits[-1]))
        if drawn < count:
            drafted = torch.cat([drafted, sampler.draw(sampling[-1].exp())], dim=1)
    return _Draft(drafted, drafted[0, ids.shape[1] :], torch.cat(logits).log_softmax(-1), torch.cat(sampling))


def _accepted_count(q: Tensor, pi: Tensor, tokens: Tensor) -> int:
    """Return how many drafted tokens precede the first rejected one.

    Args:
        q, pi: sampling and cascade distributions as log-probabilities, ``[count, vocab]``.
        tokens: the drafted tokens, ``[count]``.
    """
    if not len(tokens):
        return 0
    accept = acceptance_probability(q, pi).gather(-1, tokens[:, None])[:, 0]
    rejected = (torch.rand(len(tokens), device=accept.device) >= accept).nonzero()
    return int(rejected[0]) if len(rejected) else len(tokens)


def _single_prompt(input_ids: Tensor, attention_mask: Tensor | None) -> Prompts:
    """Return the prompt of a call with one row."""
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    return Prompts(ids=input_ids, mask=mask, texts=("",), messages=(None,), adds_specials=False)
