"""Trees of drafts change the number of forwards, and never a token."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from transformers import StopStringCriteria

from fakes import absolute_model, sliding_model
from logitkit.errors import ModeError, ModelError
from logitkit.processors.engine.draft_tree import DraftTree
from logitkit.processors.engine.trace import Trace
from logitkit.processors.searches import BoundSearch, Goose, Sampling
from logitkit.processors.searches.draft_shape import DraftShape
from logitkit.processors.searches.draft_sources import ContextMatcher, Match, TransitionTable
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.laws.tiny_models import WIDTH, encoder_decoder_model

PAD = 258


def both(ids: torch.Tensor, budget: int = 16, model: Any = None, **settings: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """What goose and plain decoding write; the latter with the random numbers of a search."""
    model = model or tiny_model()
    goose, sampling = BoundSearch(Goose(budget=budget)), BoundSearch(Sampling())
    goose.seeds = sampling.seeds = range(len(ids))
    got = model.generate(ids, custom_generate=goose, **settings)
    plain = model.generate(ids, **({"custom_generate": sampling} if settings.get("do_sample") else {}), **settings)
    return got, plain


def rows(count: int, length: int, seed: int, letters: int = 256) -> torch.Tensor:
    """Random prompts; few letters repeat themselves."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, letters, (count, length), generator=generator)


def test_matches_by_hand() -> None:
    """The longest group counts, its first occurrence is followed, and agreement of two occurrences is certainty."""
    matcher = ContextMatcher()
    matcher.extend([1, 2, 3, 9, 7, 1, 2, 3])
    assert matcher.match(4) == Match([9, 7, 1, 2], 0.225)  # three tokens agree: 0.6 * 3 / 8
    assert matcher.match(1) == Match([9], 0.225)
    matcher.extend([9, 7, 1, 2, 3])
    assert matcher.match(9) == Match([9, 7, 1, 2, 3], 0.7)  # eight tokens agree
    matcher.extend([5])
    assert matcher.match(4) is None
    loop = ContextMatcher()
    loop.extend([*range(7)] * 3)
    assert loop.match(3) == Match([0, 1, 2], 1.0)  # behind both earlier occurrences of 2 3 4 5 6 stands 0 1 2 3
    long = ContextMatcher()
    long.extend([*range(20), 99, *range(20)])
    assert long.match(2) == Match([99, 0], 0.9)
    assert ContextMatcher().match(3) is None


def test_a_text_does_not_match_its_own_end() -> None:
    """Equal tokens match one place earlier, not the end itself."""
    matcher = ContextMatcher()
    matcher.extend([5, 5, 5])
    assert matcher.match(3) is None
    matcher.extend([5])
    assert matcher.match(3) == Match([5], 0.225)


def test_shape_by_hand() -> None:
    """Without a match, 0.5 of 12 nodes may be the spine, here of likely transitions; the others are branches."""
    table, matcher, shape = TransitionTable(), ContextMatcher(), DraftShape(12)
    matcher.extend([1])
    table.add([(-1, 1)], torch.tensor([[0.0, 0.0, 0.7, 0.2, 0.1]]).log())
    table.add([(1, 2)], torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]]).log())
    tree = DraftTree(tiny_model())
    root = tree.draft(tree.end, 1)
    spine, branches = shape.drafts(root, matcher, table, tree.draft, 9)
    assert [node.token for node in spine] == [2]  # 0.7 > 0.6; behind it nothing is likely enough
    assert sorted(node.tokens() for node in branches if node.depth == 1) == [[1, 3], [1, 4]]
    assert [1, 2, 1] in [node.tokens() for node in branches] and [1, 2, 3] in [node.tokens() for node in branches]
    assert len(branches) <= 10
    shape.note(0, 4)
    shape.note(0, 4)
    assert math.isclose(shape.accepted, 0.5 * 0.7**2) and shape.spine_nodes(0.0) == int(12 * 0.3)
    deep = DraftShape(12).drafts(tree.draft(tree.end, 1), matcher, table, tree.draft, 1)
    assert {node.depth for part in deep for node in part} == {1}


def test_a_path_of_a_tree_reads_as_a_row() -> None:
    """The cache of a path whose nodes lie apart gives the logits of the row."""
    model, tree = tiny_model(), DraftTree(tiny_model())
    end = tree.start([1, 2, 3], lambda nodes, logits: None)
    first = tree.draft(end, 3)
    others = [tree.draft(first, token) for token in (7, 8)]
    second = tree.draft(first, 4)
    third = tree.draft(second, 5)
    tree.feed([first, *others, second, third])
    tree.keep_path([first, second, third])
    got = tree.feed([tree.draft(tree.end, 6)])
    with torch.no_grad():
        want = model(torch.tensor([[1, 2, 3, 4, 5, 6]])).logits[:, -1]
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert tree.end.tokens() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("do_sample", [False, True])
def test_tokens_are_those_of_plain_decoding(do_sample: bool) -> None:
    """Batches of random prompts, padded on the left, under settings that depend on the row."""
    chooser = random.Random(0)
    for number in range(6):
        ids = rows(8, chooser.randint(1, 20), number, chooser.choice([3, 256]))
        mask = torch.ones_like(ids)
        mask[::2, : ids.shape[1] // 2] = 0
        settings: dict[str, Any] = {"max_new_tokens": chooser.randint(1, 9), "do_sample": do_sample}
        if do_sample:
            settings |= {"temperature": 0.6, "top_k": 4}
        if number % 2:
            settings |= {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "eos_token_id": list(range(0, 256, 9))}
        got, plain = both(ids, chooser.choice([1, 5, 24]), attention_mask=mask, pad_token_id=PAD, **settings)
        assert torch.equal(got, plain)


@pytest.mark.slow
@pytest.mark.parametrize("batches", [5, pytest.param(20, marks=pytest.mark.long)])
def test_many_prompts(batches: int) -> None:
    """Greedy decoding of batches of 50 random prompts, token by token."""
    for number in range(batches):
        ids = rows(50, 1 + 5 * number % 12, number, 4 if number % 2 else 256)
        got, plain = both(ids, 10, max_new_tokens=5, do_sample=False, pad_token_id=PAD)
        assert torch.equal(got, plain)


def test_other_architectures() -> None:
    """Positions that are absolute, and a window of 8 tokens."""
    for model in (absolute_model(), sliding_model()):
        got, plain = both(rows(2, 14, 3, 3), model=model, max_new_tokens=12, do_sample=False, pad_token_id=PAD)
        assert torch.equal(got, plain)


def test_samples_have_the_law_of_the_model() -> None:
    """Chi-squared of 300 samples over the pairs of three tokens; a false alarm has probability 0.001."""
    kept = [1, 2, 3]
    suppressed = [token for token in range(WIDTH) if token not in kept]
    ids = torch.tensor([[1, 2, 3, 1, 2, 3, 1]])
    torch.manual_seed(0)
    settings: dict[str, Any] = {"suppress_tokens": suppressed, "max_new_tokens": 2, "do_sample": True, "top_k": 0}
    found = tiny_model().generate(
        ids, custom_generate=Goose(budget=6), num_return_sequences=300, pad_token_id=PAD, **settings
    )
    counts, expected = [], []
    for pair in itertools.product(kept, repeat=2):
        logp = 0.0
        for place, token in enumerate(pair):
            row = torch.cat([ids, torch.tensor([pair[:place]], dtype=torch.long)], dim=1)
            with torch.no_grad():
                logits = tiny_model()(row).logits[0, -1, kept]
            logp += float(logits.double().log_softmax(-1)[kept.index(token)])
        expected.append(300 * math.exp(logp))
        counts.append(int((found[:, -2:] == torch.tensor(pair)).all(-1).sum()))
    assert sum(counts) == 300
    assert chisquare(counts, [value * 300 / sum(expected) for value in expected]).pvalue > 0.001


def test_text_that_repeats_needs_fewer_forwards() -> None:
    """Of three tokens, the tiny model writes a loop, whose tokens are drafts."""
    ids = torch.tensor([[1, 2, 3, 1, 2, 3]])
    suppressed = [token for token in range(WIDTH) if token not in (1, 2, 3)]
    settings: dict[str, Any] = {"do_sample": False, "max_new_tokens": 40, "suppress_tokens": suppressed}
    search = BoundSearch(Goose(budget=24), trace=(trace := Trace()))
    got = tiny_model().generate(ids, custom_generate=search, **settings)
    assert torch.equal(got, tiny_model().generate(ids, **settings))
    assert trace.search is not None and trace.search.notes["new tokens a forward"] > 2
    assert trace.search.notes["accepted drafts"] <= trace.search.notes["drafts"]
    assert trace.search.forwards < 20


def test_stop_strings_and_end_tokens_inside_drafts() -> None:
    """A row ends at the first token after which it must, though later drafts agree too."""
    ids = tiny_tokenizer()("ab", return_tensors="pt").input_ids
    free = tiny_model().generate(ids, do_sample=False, max_new_tokens=30, eos_token_id=None, pad_token_id=PAD)
    for place in (3, 9, 20):
        settings: dict[str, Any] = {"do_sample": False, "max_new_tokens": 30, "pad_token_id": PAD}
        got, plain = both(ids, 24, eos_token_id=int(free[0, place]), **settings)
        assert torch.equal(got, plain)
    stop = StopStringCriteria(tiny_tokenizer(), ["a"])
    settings = {"stopping_criteria": [stop], "do_sample": False, "max_new_tokens": 30, "pad_token_id": PAD}
    got, plain = both(ids, 24, **settings)
    assert torch.equal(got, plain) and got.shape[1] == 30  # "a" is the 30th token


def test_refused() -> None:
    ids = torch.tensor([[1, 2]])
    with pytest.raises(ModelError, match="causal"):
        encoder_decoder_model().generate(ids, custom_generate=Goose(), max_new_tokens=2)
    with pytest.raises(ModeError, match="goose: num_beams must be 1"):
        tiny_model().generate(ids, custom_generate=Goose(), num_beams=2, max_new_tokens=2)
