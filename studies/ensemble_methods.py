"""The methods of the ensemble study, which all read the same logits of the same models."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from logitkit import models
from logitkit.processors.alignment import Alignment, AlignmentVocabulary, align
from logitkit.processors.engine import Binding, read_prompts
from logitkit.processors.ensemble import (
    Core,
    Deepen,
    Ensemble,
    Member,
    Representation,
    RepresentedHelper,
    find_helper_models,
    shared_tokens,
)
from logitkit.processors.tokens import Retokenizer
from studies.ensemble_members import EnsembleMembers
from studies.scored_items import ScoredItem

ALIGNMENTS = ("exact", "mined", "gac", "unite", "embedding")
KERNELS = ("linear", "power", "reciprocal", "sigmoid")
NOISE = (5, 10, 20)  # per cent of an alignment's rows that are replaced by a random main token
SHARED_TOKENS = 4096  # of the relative representations of deepen


class MethodComparison:
    """The models of one comparison, and all methods of combining them.

    Args:
        members: the models.
        task: ``lambada`` compares all methods, ``arc`` a few.
    """

    def __init__(self, members: EnsembleMembers, task: str) -> None:
        self.members = members
        self.main, self.tokenizer = members.loaded[members.main]
        self.vocabulary = AlignmentVocabulary.of(self.main, self.tokenizer)
        self.vocabularies = {name: AlignmentVocabulary.of(*members.loaded[name]) for name in members.helpers}
        self.logits: dict[str, Tensor] = {}  # logits of each helper for the current item, [tokens, vocab]
        self.first_logits: dict[str, Tensor] = {}  # logits of each helper after the prompt, [rows, vocab]
        self.processors = dict(self._all_methods() if task == "lambada" else self._few_methods())

    def _helpers(self, alignment: str, noise: int = 0) -> list[Member]:
        """Return the helpers with an alignment; see `corrupted` for the noise."""
        helpers = []
        for seed, (name, vocabulary) in enumerate(self.vocabularies.items()):
            clean = align(alignment, vocabulary, self.vocabulary, cache=models.cache_folder() / "alignments")
            helpers.append(Member(name=name, read=self._read_logits(name), alignment=corrupted(clean, noise, seed)))
        return helpers

    def _read_logits(self, name: str) -> Callable[[Tensor], Tensor]:
        """Return a stream that returns the stored logits of a helper."""
        return lambda ids: self.logits[name]

    def _few_methods(self) -> Iterator[tuple[str, Any]]:
        """Yield the methods of the task arc by label."""
        half = self.members.half_weights
        for alignment in ("gac", "unite"):
            helpers = self._helpers(alignment)
            yield f"vanilla {alignment}", Ensemble(helpers=helpers)
            yield f"vanilla {alignment}, main 1/2", Ensemble(helpers=helpers, weights=half)
        yield "core gac, topk 0", self._core(self._helpers("gac"), topk=0)
        yield "core gac choice, topk 0", self._core(self._helpers("gac"), preset="choice", topk=0)

    def _all_methods(self) -> Iterator[tuple[str, Any]]:
        """Yield the methods of the task lambada by label."""
        half = self.members.half_weights
        for alignment in ALIGNMENTS:
            helpers = self._helpers(alignment)
            yield f"vanilla {alignment}", Ensemble(helpers=helpers, topk=10)
            yield f"vanilla {alignment}, main 1/2", Ensemble(helpers=helpers, weights=half, topk=10)
            yield f"core {alignment}", self._core(helpers)
        helpers = self._helpers("gac")
        yield "vanilla gac, topk 0", Ensemble(helpers=helpers)
        yield "vanilla gac, main 1/2, topk 0", Ensemble(helpers=helpers, weights=half)
        yield "geometric gac, topk 0", Ensemble(helpers=helpers, fuse="geometric")
        yield "core gac, topk 0", self._core(helpers, topk=0)
        for kernel in KERNELS:
            yield f"core gac, {kernel}", self._core(helpers, kernel=kernel)
        yield "core gac, published", self._core(helpers, preset="published")
        yield "core gac, choice", self._core(helpers, preset="choice")
        yield "deepen", self._deepen()
        for alignment in ("mined", "gac"):
            for noise in NOISE:
                helpers = self._helpers(alignment, noise)
                yield f"vanilla {alignment}, {noise} % noise", Ensemble(helpers=helpers, topk=10)
                with_half = Ensemble(helpers=helpers, weights=half, topk=10)
                yield f"vanilla {alignment}, main 1/2, {noise} % noise", with_half
                yield f"core {alignment}, {noise} % noise", self._core(helpers)

    def _core(self, helpers: list[Member], **parameters: Any) -> Core:
        """Return CoRE with these helpers."""
        return Core(
            helpers=helpers,
            token_bytes=self.vocabulary.vocabulary.token_bytes,
            end_tokens=self.vocabulary.end_tokens,
            **parameters,
        )

    def _deepen(self) -> Deepen:
        """Return DeePEn over the tokens that all vocabularies share."""
        main_ids, helper_ids = shared_tokens(self.vocabulary, list(self.vocabularies.values()), SHARED_TOKENS)
        embeddings = {
            name: model.get_input_embeddings().weight.detach() for name, (model, _) in self.members.loaded.items()
        }
        helpers = [
            RepresentedHelper(self._read_logits(name), Representation(embeddings[name], ids))
            for name, ids in zip(self.members.helpers, helper_ids, strict=True)
        ]
        return Deepen(main=Representation(embeddings[self.members.main], main_ids), helpers=helpers)

    @torch.no_grad()
    def answer(self, item: ScoredItem) -> dict[str, Any]:
        """Return the log-probability of every option under each method, and whether greedy decoding writes it."""
        prompts = read_prompts(self.tokenizer, self.main, item.prompt)
        texts = [option.encode() for option in item.options]
        rows = Retokenizer(self.vocabulary.vocabulary, self.tokenizer, self.vocabulary.vocabulary).of_bytes(texts)
        width = max(map(len, rows))
        padded = torch.tensor([[*row, *row[-1:] * (width - len(row))] for row in rows])  # [rows, width]
        ids = torch.cat([prompts.ids.expand(len(rows), -1), padded], dim=1)
        is_token = torch.arange(width)[None] < torch.tensor([len(row) for row in rows])[:, None]
        scores = self.main(ids, logits_to_keep=width + 1).logits[:, :-1].float()[is_token]  # [tokens, vocab]
        self._read_helpers(prompts, ids, is_token)
        tokens, row_of = padded[is_token], is_token.nonzero()[:, 0]
        answers = {"main alone": _option_scores(scores.log_softmax(-1), tokens, row_of, len(rows))}
        for name in self.members.helpers:
            answers[f"{name} alone"] = self._helper_alone(name, item)
        for label, processor in self.processors.items():
            logp = processor(torch.zeros(len(scores), 1, dtype=torch.long), scores).log_softmax(-1)
            answers[label] = _option_scores(logp, tokens, row_of, len(rows))
        return {"right": item.right, "bytes": [len(text) for text in texts], "answers": answers}

    def _read_helpers(self, prompts: Any, ids: Tensor, is_token: Tensor) -> None:
        """Store the logits of every helper before each token of the options."""
        loaded = self.members.loaded
        binding = Binding(
            self.main,
            self.tokenizer,
            prompts,
            resources={name: model for name, (model, _) in loaded.items()},
            tokenizers={name: tokenizer for name, (_, tokenizer) in loaded.items()},
        )
        for helper in find_helper_models(binding, "ensemble_quality", self.members.helpers):
            steps = [helper.read(ids[:, : prompts.width + place]) for place in range(is_token.shape[1])]
            self.logits[helper.name] = torch.stack(steps, dim=1)[is_token]
            self.first_logits[helper.name] = steps[0]

    def _helper_alone(self, name: str, item: ScoredItem) -> dict[str, Any]:
        """Return the scores of the options under a helper, in the helper's own tokens."""
        model, tokenizer = self.members.loaded[name]
        vocabulary = self.vocabularies[name].vocabulary
        prompt = tokenizer(item.prompt)["input_ids"]
        scores: dict[str, list[Any]] = {"logp": [], "greedy": []}
        rows = Retokenizer(vocabulary, tokenizer, vocabulary).of_bytes([option.encode() for option in item.options])
        for row, first in zip(rows, self.first_logits[name], strict=True):
            logits = first[None]
            if len(row) > 1:
                logits = model(torch.tensor([[*prompt, *row]]), logits_to_keep=len(row) + 1).logits[0, :-1]
            logp = logits.float().log_softmax(-1)
            option = _option_scores(logp, torch.tensor(row), torch.zeros(len(row), dtype=torch.long), 1)
            scores["logp"] += option["logp"]
            scores["greedy"] += option["greedy"]
        return scores


def _option_scores(logp: Tensor, tokens: Tensor, row_of: Tensor, count: int) -> dict[str, Any]:
    """Return the log-probability of each option, and whether each of its tokens is the most probable one.

    Args:
        logp: log-probabilities before each token of all options, ``[tokens, vocab]``.
        tokens: the tokens, ``[tokens]``.
        row_of: the option that each token belongs to, ``[tokens]``.
        count: number of options.
    """
    chosen = logp.gather(-1, tokens[:, None])[:, 0].double()
    best = logp.argmax(-1) == tokens
    total = [float(chosen[row_of == number].sum()) for number in range(count)]
    return {"logp": total, "greedy": [bool(best[row_of == number].all()) for number in range(count)]}


def corrupted(alignment: Alignment, noise: int, seed: int) -> Alignment:
    """Return an alignment in which ``noise`` per cent of the aligned helper tokens map to a random main token."""
    generator = torch.Generator().manual_seed(seed)
    aligned = (alignment.weights.sum(-1) > 0).nonzero()[:, 0]
    replaced = aligned[torch.randperm(len(aligned), generator=generator)[: len(aligned) * noise // 100]]
    targets = alignment.targets.clone()
    targets[replaced] = torch.randint(0, alignment.main_size, (len(replaced), targets.shape[1]), generator=generator)
    return dataclasses.replace(alignment, targets=targets)
