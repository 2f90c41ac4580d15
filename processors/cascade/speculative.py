"""Speculative cascades: the small model drafts, the large one checks a block in one pass, pi comes out.

arXiv:2405.19261, section 4. A token-level cascade costs a large forward at every token where its rule needs
the large law; here a block of drafts shares one. Built on public API only, as a callable for
``generate(custom_generate=...)``, and on readers, which rewind a rejected draft by content. Transformers'
assisted decoding could not be used: its accept rule is fixed to the large model's own law, and it hands the
same processors to the draft model.

What comes out is distributed as the cascade token by token: drafts follow q, are accepted with min(1, pi / q),
replaced from the residual, and a block that was accepted whole is followed by a token from pi. (The released
notebook draws that bonus from p; then every last token of a block would not follow pi.)

    model.generate(**inputs, custom_generate=SpeculativeCascade(large=large, rule="token_v3", alpha=0.3))
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from logitkit.errors import ModeError, ModelError
from logitkit.params import Resource, checked, number, option, whole
from logitkit.processors.cascade import rules as deferral
from logitkit.processors.cascade import verification
from logitkit.processors.cascade.rules import TokenRule
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.reader import Reader
from logitkit.processors.engine.scores import fit
from logitkit.processors.engine.trace import Trace
from logitkit.processors.model_facts import vocabulary_size


class SpeculativeCascade:
    """A way of generating for ``model.generate(custom_generate=...)``, where the model is the small one.

    Temperature, top-k, top-p and any other processors of that `generate` call shape both drawn laws, q and p;
    the rule judges the models' own. Without sampling the drawn laws are greedy.

    Args:
        large: the large model; the same vocabulary.
        rule, alpha: as in `logitkit.processors.cascade.rules.trusted`. ``token_v2`` and ``token_v3`` with alpha 0 and
            without sampling give the large model's own greedy text.
        draft: tokens drafted before each check.
        trace: gets the means ``speculative accepted`` (drafts), ``speculative tokens per check``.

    Raises:
        ModelError: another vocabulary.
    """

    @checked
    def __init__(
        self,
        *,
        large: Annotated[Any, Resource()],
        rule: Annotated[TokenRule, option("how the small model's word is judged")] = "token_v3",
        alpha: Annotated[float, number("trust in the small model", ge=0, le=1)] = 0.3,
        draft: Annotated[int, whole("tokens drafted before each check", ge=1)] = 4,
        trace: Annotated[Trace | None, Resource()] = None,
    ) -> None:
        self.large, self.rule, self.alpha, self.draft, self.trace = large, rule, alpha, draft, trace or Trace()

    @torch.no_grad()
    def __call__(
        self,
        model: Any,
        input_ids: Tensor,
        logits_processor: Any = None,
        stopping_criteria: Any = None,
        generation_config: Any = None,
        **prepared: Any,
    ) -> Tensor:
        """Generate; called by `generate` with what it has prepared. Returns ids ``[1, length]``.

        Raises:
            ModeError: more than one row, beams, or an output object.
        """
        self._refuse(model, input_ids, generation_config)
        prompts = _prompts(input_ids, prepared.get("attention_mask"))
        own = [prompts.tokens(0)]
        small, large = Reader(model, own, prompts), Reader(self.large, own, prompts)
        self.trace.readers |= {"small": small, "large": large}
        shape = _Shape(logits_processor or LogitsProcessorList(), bool(generation_config.do_sample))
        ids, stopped = input_ids, False
        while not stopped:
            block = self._block(ids, small, large, shape, self._room(ids, generation_config))
            for token in block.tolist():  # criteria look at one token more at a time, as they do in generate
                ids = torch.cat([ids, torch.tensor([[token]], device=ids.device)], dim=1)
                stopped = bool(stopping_criteria(ids, None).all())
                if stopped:
                    break
        return ids

    def _block(self, ids: Tensor, small: Reader, large: Reader, shape: _Shape, room: int) -> Tensor:
        """Draft, check in one large pass, and return the tokens that stand, at least one."""
        count = min(self.draft, room - 1)
        drafted, laws, raw = ids, [], []
        for _ in range(count + 1):  # the last law is that of the bonus token; the small model would read on anyway
            raw.append(small(drafted))
            laws.append(shape.law(drafted, raw[-1]))
            if len(laws) <= count:
                drafted = torch.cat([drafted, shape.draw(laws[-1].exp())], dim=1)
        judged = large.positions(drafted, count + 1)[0]  # [count + 1, vocab]
        q, small_law = torch.cat(laws), torch.cat(raw).log_softmax(-1)
        width = q.shape[-1]
        prefixes = range(ids.shape[1], drafted.shape[1] + 1)
        fitted = fit(judged, width)
        p = torch.cat([shape.law(drafted[:, :end], row[None]) for end, row in zip(prefixes, fitted, strict=True)])
        p = deferral.restricted(p, q) if not shape.greedy else p
        pi = deferral.token_law(
            self.rule, small_law, fitted.log_softmax(-1), alpha=self.alpha, drawn_small=q, drawn_large=p
        )
        tokens = drafted[0, ids.shape[1] :]
        kept = self._kept(q[:count], pi[:count], tokens)
        if count:
            self.trace.average("speculative", "accepted", (torch.arange(count) < kept).float())
        self.trace.average("speculative", "tokens per check", torch.tensor([kept + 1.0]))
        replace = pi[kept].exp() if kept == count else verification.residual(q[kept : kept + 1], pi[kept : kept + 1])[0]
        return torch.cat([tokens[:kept], shape.draw(replace[None])[0]])

    def _kept(self, q: Tensor, pi: Tensor, tokens: Tensor) -> int:
        """How many drafts stand: up to the first that is rejected."""
        if not len(tokens):
            return 0
        accept = verification.acceptance(q, pi).gather(-1, tokens[:, None])[:, 0]
        rejected = (torch.rand(len(tokens), device=accept.device) >= accept).nonzero()
        return int(rejected[0]) if len(rejected) else len(tokens)

    def _room(self, ids: Tensor, config: Any) -> int:
        """How many tokens may still come."""
        longest = config.max_length
        return self.draft + 1 if longest is None else max(1, min(self.draft + 1, longest - ids.shape[1]))

    def _refuse(self, model: Any, input_ids: Tensor, config: Any) -> None:
        """Refuse what this way of generating cannot do."""
        sizes = [vocabulary_size(m) for m in (model, self.large)]
        if sizes[0] != sizes[1]:
            raise ModelError(
                f"SpeculativeCascade: large must have the vocabulary of the generating model ({sizes[0]}), "
                f"got {sizes[1]}; read both as byte models"
            )
        if input_ids.shape[0] != 1 or (config.num_beams or 1) > 1 or (config.num_return_sequences or 1) > 1:
            raise ModeError(
                "SpeculativeCascade: rows must be 1, since each accepts another number of drafts, got "
                f"{input_ids.shape[0]}; generate one at a time, or use the cascade processor"
            )
        if config.return_dict_in_generate:
            raise ModeError(
                "SpeculativeCascade: return_dict_in_generate must be off, it returns ids alone; leave it out"
            )


class _Shape:
    """What `generate` makes of a model's logits: the law that tokens are drawn from."""

    def __init__(self, processors: Any, sampling: bool) -> None:
        self.processors, self.greedy = processors, not sampling

    def law(self, ids: Tensor, logits: Tensor) -> Tensor:
        """Log-probabilities after the processors; without sampling all on the likeliest token, ``[1, vocab]``."""
        law = self.processors(ids, logits.clone()).float().log_softmax(-1)
        return deferral.tempered(law, 0) if self.greedy else law

    def draw(self, probabilities: Tensor) -> Tensor:
        """A token, ``[1, 1]``."""
        return probabilities.argmax(-1, keepdim=True) if self.greedy else torch.multinomial(probabilities, 1)


def _prompts(input_ids: Tensor, attention_mask: Tensor | None) -> Prompts:
    """The one prompt of a call."""
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    return Prompts(ids=input_ids, mask=mask, texts=("",), messages=(None,), adds_specials=False)
