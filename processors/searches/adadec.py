"""`AdaDec`: where the model is unsure, tokens are compared by the likeliest text behind them.

Source: He et al., arXiv:2506.08980, and SYSUSELab/AdaDec. Changes: the look-ahead is greedy and of fixed length, as
published with one beam; a branch that has ended keeps its length; entropy and scores are those of the chain.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from logitkit.errors import ModelError
from logitkit.params import Resource, checked, number, option, whole
from logitkit.processors.engine.binding import Binding
from logitkit.processors.samplers.temperature import entropies
from logitkit.processors.searches.entropy_threshold import EntropyThreshold
from logitkit.processors.searches.random_numbers import draw, uniform
from logitkit.processors.searches.rows import Rows
from logitkit.processors.searches.run import Found, SearchRun
from logitkit.processors.searches.search import Search

Nats = Annotated[float, number("entropy in nats from which on tokens are compared", ge=0, infinite=True)]
Threshold = Annotated[
    Nats | str,
    option(
        "entropy in nats from which on tokens are compared, or the file that `logitkit train-adadec` wrote, or the "
        "name under which bind gets an EntropyThreshold"
    ),
]
Top = Annotated[int, whole("number of likeliest tokens that are compared; 1: the likeliest", ge=1)]
Depth = Annotated[int, whole("tokens that are read behind each of them, one forward after another", ge=1)]


def best_continued(law: Tensor, rows: Rows, *, top: int, depth: int) -> Tensor:
    """Return the token of each row whose greedy continuation has the largest mean log-probability, ``[rows]``.

    The mean is over the token and up to ``depth`` tokens behind it, fewer where the text ends. Of equally good tokens
    the likelier one wins; tokens of probability 0 are not compared.

    Args:
        law: log-probabilities of the next token, nats, ``[rows, vocab]``.
        rows: the rows, which this function changes: pass a fork.
        top: number of likeliest tokens that are compared.
        depth: tokens behind each of them.
    """
    logp, candidates = torch.sort(law, dim=-1, descending=True, stable=True)
    logp, candidates = logp[:, :top], candidates[:, :top]  # [rows, top]
    candidates = torch.where(logp > -torch.inf, candidates, candidates[:, :1])
    count, width = candidates.shape
    rows.select(torch.arange(count, device=law.device).repeat_interleave(width))
    before, length = rows.logp, rows.lengths
    rows.append(candidates.flatten())
    for _ in range(depth):
        if rows.done:
            break
        rows.append(rows.law().argmax(-1))
    means = ((rows.logp - before) / (rows.lengths - length)).view(count, width)
    return candidates.gather(-1, means.argmax(-1, keepdim=True))[:, 0]


class AdaDec(Search):
    """Where the next token is uncertain, take the one with the likeliest text behind it (AdaDec, arXiv:2506.08980).

    Where the entropy of the law p of the steps is at least ``threshold``, each of the ``top`` likeliest tokens v is
    continued greedily by ``depth`` tokens, fewer where the text ends. The v with the largest
    ``(log p(v) + sum of the log p of these tokens) / (their number + 1)`` is taken. Elsewhere the next token is that
    of plain decoding: the likeliest one, or drawn with ``do_sample=True``; where tokens are compared nothing is drawn.

    A look-ahead is ``depth`` forwards, one after another, each of ``top`` rows for every row that compares.

    Args:
        threshold: entropy in nats, at least 0; infinite: plain decoding; or a file, whose threshold is taken.
        top: number of tokens that are compared; 1 is greedy decoding.
        depth: tokens behind each of them.
        fitted: the threshold that ``threshold`` names; None: it is a number, or the name of a file.

    Raises:
        ParameterError: a threshold below 0 or NaN.
        FileFormatError: the file is missing, damaged or of another kind.

    Example:
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> ids, settings = tiny_tokenizer()("ab", return_tensors="pt").input_ids, {"max_new_tokens": 4}
        >>> greedy = tiny_model().generate(ids, do_sample=False, **settings)
        >>> search = AdaDec(threshold=float("inf"))
        >>> bool((tiny_model().generate(ids, custom_generate=search, do_sample=False, **settings) == greedy).all())
        True
    """

    name: ClassVar[str] = "adadec"
    drops: ClassVar[bool] = True
    samples: ClassVar[bool] = False
    alike: ClassVar[bool] = True
    order = ("threshold", "top", "depth")

    @checked
    def __init__(
        self,
        *,
        threshold: Threshold,
        top: Top = 3,
        depth: Depth = 5,
        fitted: Annotated[EntropyThreshold | None, Resource()] = None,
    ) -> None:
        self._fitted = fitted if fitted or not isinstance(threshold, str) else EntropyThreshold.load(threshold)
        self.threshold = float(threshold) if self._fitted is None else self._fitted.nats
        self.top, self.depth = top, depth
        self.draws = self.threshold > 0  # no entropy is below 0, so every token is compared

    @classmethod
    def bind(cls, binding: Binding, *, threshold: float | str, top: int, depth: int) -> AdaDec:
        """Return the search, with a fitted threshold where ``threshold`` names a file or an object passed to bind.

        Raises:
            FileFormatError: the file is missing, damaged or of another kind.
            ModelError: the threshold was fitted for another model, or the object passed to bind is no threshold.
        """
        named = isinstance(threshold, str) and threshold in binding.resources
        fitted: Any = binding.resource(str(threshold)) if named else None
        if named and not isinstance(fitted, EntropyThreshold):
            raise ModelError(
                f"adadec: threshold {threshold!r} must be an EntropyThreshold, got {type(fitted).__name__}"
            )
        search = cls(threshold=threshold, top=top, depth=depth, fitted=fitted)
        if search._fitted is not None:
            search._fitted.check("adadec", binding.model)
        return search

    def search(self, run: SearchRun) -> Found:
        """Return the sequences of every prompt; all rows of one step are in one forward."""
        rows = run.rows(run.wanted)
        particle = torch.arange(run.wanted, device=run.ids.device).repeat(run.prompts)
        seeds, compared, changed, ahead = run.seeds[rows.prompt], 0, 0, 0
        for step in range(run.max_new_tokens):
            law = rows.law()
            likeliest = law.argmax(-1)
            tokens = draw(law, uniform(seeds, particle, step)) if run.sampling else likeliest
            unsure = (entropies(law)[0][:, 0] >= self.threshold) & ~rows.finished
            index = unsure.nonzero().flatten()
            if len(index):
                before = run.cost.forwards
                branches = rows.fork()
                branches.select(index)
                best = best_continued(law[index], branches, top=self.top, depth=self.depth)
                changed += int((best != likeliest[index]).sum())
                tokens = tokens.index_copy(0, index, best)
                compared, ahead = compared + len(index), ahead + run.cost.forwards - before
            rows.append(tokens)
            if rows.done:
                break
        run.cost.notes |= {"compared tokens": compared, "changed tokens": changed, "look-ahead forwards": ahead}
        run.cost.notes |= {"new tokens": int(rows.lengths.sum())}
        return Found.of(rows)
