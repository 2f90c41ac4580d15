"""`Beams`: beam search, and diverse beam search in groups that avoid each other's tokens.

Source of the groups: Vijayakumar et al., arXiv:1610.02424, section 4 (Hamming diversity).
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from logitkit.errors import ModeError, ParameterError
from logitkit.params import checked, number, whole
from logitkit.processors.engine.binding import Binding
from logitkit.processors.samplers.attribute import AttributeStep
from logitkit.processors.searches.rows import Rows
from logitkit.processors.searches.run import Found, SearchRun
from logitkit.processors.searches.search import Search

Width = Annotated[int, whole("number of beams of all groups together", ge=1)]
Groups = Annotated[int, whole("number of groups; a divisor of width", ge=1)]
Diversity = Annotated[float, number("nats that a token loses for each earlier group that takes it", ge=0)]


class Beams(Search):
    """Look for the likeliest texts under the chain with beams, in groups that differ from each other.

    At each step a group keeps its best beams by ``sum_t (log p(v_t) - diversity * n_t)``, with n the number of earlier
    groups that took the same token at the same step. A text that has ended stays among the beams with its score, and
    the search stops when all have ended. A beam for which the steps leave no token is dropped. No score is divided by
    a length. The best text of each group comes before the second ones, each in the order of scores. An `AttributeStep`
    at the end of the chain makes the search conditional: its differences add up to the log-probability of the
    attribute. The weights of the returned texts are proportional to their probabilities, with that of the attribute.

    Args:
        width: number of beams of a prompt.
        groups: number of groups among which the beams are divided.
        diversity: weight of the differences between groups; 0: all groups find the same texts.
        adds_up: whether the scores of the chain are summed without normalisation, as those of an attribute.

    Raises:
        ParameterError: groups that do not divide the width.

    Example:
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> ids, settings = tiny_tokenizer()("ab", return_tensors="pt").input_ids, {"max_new_tokens": 4}
        >>> found = tiny_model().generate(ids, custom_generate=Beams(width=3), do_sample=False, **settings)
        >>> want = tiny_model().generate(ids, num_beams=3, length_penalty=0.0, do_sample=False, **settings)
        >>> bool((found == want).all())
        True
    """

    name: ClassVar[str] = "beams"
    drops: ClassVar[bool] = True
    fuses: ClassVar[bool] = True
    samples: ClassVar[bool] = False
    draws = False

    @checked
    def __init__(self, *, width: Width = 4, groups: Groups = 1, diversity: Diversity = 0.5) -> None:
        if width % groups:
            raise ParameterError("beams", "groups", f"a divisor of width {width}", groups)
        self.width, self.groups, self.diversity = width, groups, diversity
        self.adds_up = False

    @classmethod
    def bind(cls, binding: Binding, *, width: int, groups: int, diversity: float) -> Beams:
        """Return the search for the steps before it.

        Raises:
            ParameterError: as for the class.
            ModeError: an attribute that another step follows, whose scores would not add up.
        """
        search = cls(width=width, groups=groups, diversity=diversity)
        attributes = [isinstance(step, AttributeStep) for _, step in binding.preceding]
        if any(attributes[:-1]):
            following = binding.preceding[attributes.index(True) + 1][0]
            raise ModeError(
                f"attribute: must be the last step before beams, where its scores add up and {following} would change "
                f"them; write {following}(...) | attribute(...) | beams(...)"
            )
        search.adds_up = any(attributes)
        return search

    def sequences(self, wanted: int) -> int:
        """Return how many sequences the search finds: at most one a beam."""
        return min(wanted, self.width)

    def search(self, run: SearchRun) -> Found:
        """Return the best ``run.wanted`` sequences of each prompt, best first."""
        rows = run.rows()
        rows.law()
        # One beam of each group has the prompt at first; the others are no texts yet.
        rows.select(torch.arange(run.prompts, device=run.ids.device).repeat_interleave(self.width))
        size = self.width // self.groups
        totals = torch.full((run.prompts, self.groups, size), -torch.inf, dtype=torch.float64, device=run.ids.device)
        totals[:, :, 0] = 0.0
        values = totals.clone()
        for _ in range(run.max_new_tokens):
            totals, values = self._step(run, rows, totals, values)
            dead = totals == -torch.inf
            run.refuse_lost(dead.flatten(1).all(-1))
            rows.end(lost=dead.flatten())
            if rows.done:
                break
        order = self._order(totals)[:, : run.wanted]
        first = torch.arange(run.prompts, device=order.device)[:, None] * self.width
        rows.select((first + order).flatten())
        # Fewer texts than beams may be possible; the other beams are no texts, and have weight 0.
        absent = totals.flatten(1).gather(1, order) == -torch.inf
        log_weights = values.flatten(1).gather(1, order).masked_fill(absent, -torch.inf)
        texts = rows.ids.view(*order.shape, -1)
        # Groups may find one text several times.
        copies = ((texts[:, :, None] == texts[:, None]).all(-1) & ~absent[:, None]).sum(-1).clamp_min(1)
        return Found.of(rows, log_weights=(log_weights - copies.double().log()).log_softmax(-1), sampled=False)

    def _step(self, run: SearchRun, rows: Rows, totals: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Extend the beams by one token each; return their scores with and without diversity.

        Args:
            run, rows: of the search.
            totals: scores of the beams, ``[prompts, groups, size]``.
            values: the scores without what diversity took, ``[prompts, groups, size]``.
        """
        prompts, groups, size = totals.shape
        grown = self._scores(run, rows).double()
        vocab = grown.shape[-1]
        # A text that has ended goes on with padding alone, which costs nothing.
        complete = rows.finished & ~rows.lost
        grown = grown.masked_fill(rows.finished[:, None], -torch.inf)
        grown[:, run.padding] = torch.where(complete, 0.0, grown[:, run.padding])
        ended = complete.view(prompts, groups, size)
        grown = grown.view(prompts, groups, size, vocab)
        scores = totals[..., None] + grown
        taken = torch.zeros(prompts, vocab, dtype=torch.float64, device=scores.device)
        index, tokens, new, undiverse = [], [], [], []
        for group in range(groups):
            penalty = torch.where(ended[:, group, :, None], 0.0, self.diversity * taken[:, None])
            best = (scores[:, group] - penalty).flatten(1)
            kept, places = torch.sort(best, dim=-1, descending=True, stable=True)
            kept, places = kept[:, :size], places[:, :size]
            parents, chosen = places // vocab, places % vocab  # [prompts, size]
            alive = ~ended[:, group].gather(1, parents) & (kept > -torch.inf)
            taken += torch.zeros_like(taken).scatter_reduce(1, chosen, alive.double(), "amax")
            index.append(parents + group * size)
            tokens.append(chosen)
            new.append(kept)
            undiverse.append((values[:, group, :, None] + grown[:, group]).flatten(1).gather(1, places))
        first = torch.arange(prompts, device=scores.device)[:, None] * self.width
        rows.select((first + torch.cat(index, 1)).flatten())
        rows.append(torch.cat(tokens, 1).flatten())
        return torch.stack(new, 1), torch.stack(undiverse, 1)

    def _scores(self, run: SearchRun, rows: Rows) -> Tensor:
        """Return what each next token adds to the score of each row, ``[rows, vocab]``."""
        if not self.adds_up:
            return rows.law()
        rows.law()  # ends rows without a token
        return run.scores(rows.ids, rows.raw)

    def _order(self, totals: Tensor) -> Tensor:
        """Return the numbers of the beams of each prompt, ``[prompts, width]``: the best of each group first.

        Beams that are no texts come last.
        """
        groups, size = totals.shape[1:]
        ranks = []
        within = totals.argsort(dim=-1, descending=True, stable=True)
        for rank in range(size):
            beams = within[:, :, rank]  # [prompts, groups]
            values = totals.gather(-1, beams[..., None])[..., 0]
            by_score = values.argsort(dim=-1, descending=True, stable=True)
            numbers = beams + torch.arange(groups, device=totals.device) * size
            ranks.append(numbers.gather(1, by_score))
        order = torch.cat(ranks, dim=1)
        absent = totals.flatten(1).gather(1, order) == -torch.inf
        return order.gather(1, absent.int().argsort(dim=-1, stable=True))
