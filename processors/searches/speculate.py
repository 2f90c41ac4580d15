"""`Speculate`: the generating model drafts tokens, and other models read the drafts in one chunk.

Source: speculative decoding (arXiv:2211.17192) and speculative cascades (arXiv:2405.19261, section 4), whose target is
the distribution of a cascade. Changes: the target is the law of any chain; each token depends on its text and on the
random numbers of its place alone, also the one behind drafts that were all accepted; rows of a batch go on together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated, ClassVar, NamedTuple

import torch
from torch import Tensor

from logitkit.params import Resource, checked, whole
from logitkit.processors.cascade.verification import acceptance_probability, residual_distribution
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.cross_tokenizer_reader import CrossTokenizerReader
from logitkit.processors.engine.processor_list import ChainInGenerate
from logitkit.processors.engine.reader import Reader
from logitkit.processors.searches.random_numbers import draw, uniform
from logitkit.processors.searches.rows import Rows, RowsMark
from logitkit.processors.searches.run import Found, SearchRun
from logitkit.processors.searches.search import Search

DraftLength = Annotated[int, whole("tokens drafted before each reading of the other models", ge=1)]


class Speculate(Search):
    """Decode as without the search, with fewer forwards of the other models that the steps of the chain read.

    The drafts follow q, the law of the chain without the steps that name other models. The other models then read all
    drafts in one chunk, and p, the law of the whole chain, is computed at each draft. A draft v is accepted with
    probability min(1, p(v) / q(v)), else replaced by a draw from the normalised max(0, p - q): the token follows p
    exactly, whatever the models and the steps are. Without sampling, a draft is accepted where it is the likeliest
    token of p, so the text is that of greedy decoding. Where every draft is accepted, one more token is written.

    A token depends on the text before it and on random numbers of its place, not on where drafting began. So neither
    ``draft_length`` nor the other rows of a batch change the text. All rows go on together, by the smallest number of
    accepted drafts among them.

    Args:
        draft_length: number of drafts before the other models read.
        model_steps: numbers of the steps that name other models; the other steps make q.

    Example:
        >>> import logitkit
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> def written(chain):
        ...     call = logitkit.chain(chain).bind(tiny_model(), tiny_tokenizer(), "A prompt", large=tiny_model(1))
        ...     ids = call.generate(max_new_tokens=12, do_sample=False)
        ...     return ids.tolist(), call.trace.forwards["large"]
        >>> cascade = "cascade('large', rule='token_v1', alpha=0.5)"
        >>> (plain, forwards), (ids, fewer) = written(cascade), written(f"{cascade} | speculate()")
        >>> ids == plain, forwards, fewer < forwards
        (True, 12, True)
    """

    name: ClassVar[str] = "speculate"
    samples: ClassVar[bool] = False
    alike: ClassVar[bool] = True

    @checked
    def __init__(
        self, *, draft_length: DraftLength = 4, model_steps: Annotated[Collection[int], Resource()] = ()
    ) -> None:
        self.draft_length, self.model_steps = draft_length, frozenset(model_steps)

    @classmethod
    def bind(cls, binding: Binding, *, draft_length: int) -> Speculate:
        """Return the search for the steps before it."""
        if not binding.model_steps:
            reason = "no step before it names another model, and drafts cost forwards of the generating model"
            binding.no_effect["speculate"] = (reason, "write it behind a step such as cascade, or leave speculate out")
        return cls(draft_length=draft_length, model_steps=binding.model_steps)

    def search(self, run: SearchRun) -> Found:
        """Return the sequences of every prompt; all rows of one step are in one forward."""
        rows = run.rows()
        rows.prepare_rewinding()
        if run.wanted > 1:
            _ = rows.raw  # each prompt is read once
            rows.select(torch.arange(run.prompts, device=run.ids.device).repeat_interleave(run.wanted))
        decoder = _Decoder(run, rows, self.model_steps)
        while not rows.done:
            decoder.write(decoder.drafted(self.draft_length if self.model_steps else 0))
        new = rows.ids.shape[1] - run.start
        run.cost.notes |= {
            "rounds": decoder.rounds,
            "new tokens a round": new / decoder.rounds,
            "drafts": decoder.drafts,
            "accepted drafts": decoder.accepted,
        }
        return Found.of(rows)


class _Draft(NamedTuple):
    """A place for which a token was drafted.

    Attributes:
        mark: the rows before the token, with their logits.
        law: the law that the draft follows, ``[rows, vocab]``.
        tokens: the drafts, ``[rows]``.
    """

    mark: RowsMark
    law: Tensor
    tokens: Tensor


class _Decoder:
    """Drafts tokens behind all rows and writes those that the whole chain accepts.

    Args:
        run: the run of the search.
        rows: all rows of the run, in the order of their prompts.
        model_steps: numbers of the steps that name other models.

    Attributes:
        rounds: number of times that drafts were checked.
        drafts, accepted: drafted tokens of all rows that had not ended, and those among them that were written.
    """

    def __init__(self, run: SearchRun, rows: Rows, model_steps: Collection[int]) -> None:
        self.run, self.rows, self.model_steps = run, rows, model_steps
        self.particle = torch.arange(run.wanted, device=run.ids.device).repeat(run.prompts)
        self.rounds = self.drafts = self.accepted = 0
        self._readers = [one for one in run.streams.values() if isinstance(one, Reader | CrossTokenizerReader)]
        self._ends = torch.tensor([*run.end_tokens], dtype=torch.long, device=run.ids.device)

    def drafted(self, count: int) -> list[_Draft]:
        """Append at most ``count`` drafts to the rows; the last one is not appended where every row ends with it."""
        rows, ended = self.rows, self.rows.finished
        drafts: list[_Draft] = []
        for _ in range(min(count, self.run.start + self.run.max_new_tokens - rows.ids.shape[1] - 1)):
            drafts.append(self._draft())
            ended = ended | torch.isin(drafts[-1].tokens, self._ends)
            if bool(ended.all()):
                break
            # Stopping criteria of `generate` expect written tokens alone.
            rows.append(drafts[-1].tokens, drafts[-1].law, torch.zeros_like(ended))
        return drafts

    def write(self, drafts: list[_Draft]) -> None:
        """Write the tokens of the first places, up to the first one at which a row rejects its draft or ends.

        Where no row does, the place behind the drafts is written too.
        """
        rows, run = self.rows, self.run
        going, logp, last = ~rows.finished, rows.logp, len(drafts)
        if drafts:
            going, logp = ~drafts[0].mark.values["finished"], drafts[0].mark.values["logp"]
            last -= rows.ids.shape[1] == drafts[-1].mark.values["ids"].shape[1]  # the last draft ends every row
        with self._expecting(rows.ids):
            for place in range(last + 1):
                draft = drafts[place] if place < len(drafts) else self._draft()
                ids = draft.mark.values["ids"]
                law = run.law(ids, draft.mark.values["_raw"]) if self.model_steps else draft.law
                tokens = torch.where(going, self._checked(draft, law, ids.shape[1]), run.padding)
                ends = run.stopping_criteria(torch.cat([ids, tokens[:, None]], dim=1), None)
                stays = going & (tokens == draft.tokens) & ~ends
                if place == last or not bool((stays | ~going).all()):
                    break
                logp = torch.where(going, logp + law.gather(-1, tokens[:, None])[:, 0].double(), logp)
        run.count(0, 0, rows.cache, forwards=0)  # caches are largest behind the reading of the drafts
        if rows.ids.shape[1] > ids.shape[1]:
            rows.rewind(draft.mark)
        rows.logp = logp
        rows.append(tokens, law, ends)
        self.rounds += 1
        self.drafts += len(drafts) * int(going.sum())
        self.accepted += place * int(going.sum())

    def _draft(self) -> _Draft:
        """Return a draft behind the rows, which is not appended."""
        law = self._draft_law(self.rows.ids, self.rows.raw)
        return _Draft(self.rows.mark(), law, self._choice(law, self.rows.ids.shape[1]))

    def _draft_law(self, ids: Tensor, logits: Tensor) -> Tensor:
        """Return the law of the chain without the steps that name other models, ``[rows, vocab]``."""
        with ExitStack() as stack:
            for processor in self.run.processors if self.model_steps else ():
                if isinstance(processor, ChainInGenerate):
                    stack.enter_context(processor.composite.leaving_out(self.model_steps))
            return self.run.law(ids, logits)

    @contextmanager
    def _expecting(self, ids: Tensor) -> Iterator[None]:
        """Let the readers of second streams read drafts in one chunk, when a step asks for the first of them."""
        with ExitStack() as stack:
            for reader in self._readers:
                stack.enter_context(reader.expecting(ids))
            yield

    def _choice(self, law: Tensor, place: int) -> Tensor:
        """Return a token of each row: drawn, or the likeliest one, ``[rows]``."""
        return draw(law, self._uniform(place)) if self.run.sampling else law.argmax(-1)

    def _checked(self, draft: _Draft, law: Tensor, place: int) -> Tensor:
        """Return the token of each row that follows the law of the whole chain, ``[rows]``: the draft, or another."""
        if law is draft.law:
            return draft.tokens
        if not self.run.sampling:
            return law.argmax(-1)
        accept = acceptance_probability(draft.law, law).gather(-1, draft.tokens[:, None])[:, 0]
        other = draw(residual_distribution(draft.law, law).log(), self._uniform(place, 2))
        return torch.where(self._uniform(place, 1) < accept, draft.tokens, other)

    def _uniform(self, place: int, *purpose: int) -> Tensor:
        """Return random numbers of a place of the rows, float64 ``[rows]``."""
        new = place - self.run.start
        return uniform(self.run.seeds[self.rows.prompt], self.particle, new, *purpose)
