"""A tree of token sequences gives the log-probabilities of plain forwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from fakes import absolute_model, encoder_decoder_model, sliding_model
from logitkit.errors import ModelError
from logitkit.processors.engine import KVTree
from logitkit.processors.engine.kv_tree import ROOM, SLACK
from logitkit.processors.engine.tree_node import Node
from logitkit.registry.laws import tiny_model

KINDS = {"rotary": tiny_model, "absolute": absolute_model, "sliding": sliding_model}
PROMPT = [5, 6, 7, 8, 9, 10, 11, 12, 13]  # longer than the window of the sliding model


@torch.no_grad()
def next_logp(model: Any, tokens: Sequence[int]) -> torch.Tensor:
    """Log-probabilities after a sequence, from one forward without a cache, ``[positions, vocab]``."""
    return model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0].log_softmax(-1)


def check(model: Any, node: Node, conditioning: int) -> None:
    """Compare the next-token distribution of a node, and the total of its path, with a plain forward."""
    assert node.logp is not None
    tokens = node.tokens()
    logp = next_logp(model, tokens)
    torch.testing.assert_close(torch.from_numpy(node.logp), logp[-1], atol=1e-4, rtol=0)
    want = sum(float(logp[place - 1, tokens[place]]) for place in range(conditioning, len(tokens)))
    assert node.total == pytest.approx(want, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_forks_equal_plain_forwards(kind: str) -> None:
    """Forks of a prompt, forks of forks and known sequences equal plain forwards; shared tokens are read once."""
    model = KINDS[kind]()
    tree = KVTree(model)
    prompt = tree.read(tree.root, PROMPT, conditioning=True)
    ends = tree.grow([(prompt, [20, 21]), (prompt, [20, 22, 23]), (prompt, [30])])
    assert tree.forwards == 2 and tree.tokens_fed == len(PROMPT) + 5
    deeper = tree.grow([(ends[0], [24]), (ends[2], [31, 32])])
    for node in (*ends, *deeper):
        check(model, node, len(PROMPT))
    known = tree.tokens_fed
    assert tree.grow([(prompt, [20, 21])]) == [ends[0]] and tree.tokens_fed == known


@pytest.mark.parametrize("kind", KINDS)
def test_reading_in_chunks_equals_plain_forwards(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long sequence is read in chunks, and its tokens count in the total from the second one on."""
    monkeypatch.setattr("logitkit.processors.engine.kv_tree.CHUNK", 4)
    model = KINDS[kind]()
    tree = KVTree(model)
    begin = tree.read(tree.root, PROMPT[:1], conditioning=True)
    end = tree.read(begin, PROMPT[1:])
    assert tree.forwards == 3
    check(model, end, 1)
    middle = end.path()[3]  # within a chunk
    assert middle.logp is None
    check(model, tree.read(begin, PROMPT[1:4]), 1)  # the token is read again for its distribution


def test_dropped_nodes_leave_the_cache() -> None:
    """`keep` compacts the cache once many nodes are dropped, and kept nodes grow as before."""
    model = tiny_model()
    tree = KVTree(model)
    prompt = tree.read(tree.root, PROMPT, conditioning=True)
    ends = tree.grow([(prompt, [first, second]) for first in range(30) for second in range(SLACK // 20)])
    assert tree.keep([ends[:1], ends[1:3]]) == 2
    fed = tree.tokens_fed
    (grown,) = tree.grow([(ends[0], [40])])
    check(model, grown, len(PROMPT))
    assert tree.tokens_fed == fed + 1
    (again,) = tree.grow([(prompt, ends[-1].tokens()[len(PROMPT) :])])
    assert again is not ends[-1] and tree.tokens_fed == fed + 3
    check(model, again, len(PROMPT))
    assert len(ends) < ROOM  # the second group was within the room


def test_models_that_cannot_read_a_tree_are_refused() -> None:
    """An encoder-decoder model is refused, and so is a text beyond the context."""
    with pytest.raises(ModelError, match="KVTree: model must be causal"):
        KVTree(encoder_decoder_model())
    tree = KVTree(absolute_model())
    with pytest.raises(ModelError, match="at most 128 tokens, the context of GPT2LMHeadModel"):
        tree.read(tree.root, [1] * 129)


def test_an_interrupted_forward_drops_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an error the tree is empty, and the next read is right."""
    model = tiny_model()
    tree = KVTree(model)

    def fails(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tree, "model", fails)
        patch.setattr(fails, "device", model.device, raising=False)
        patch.setattr(fails, "dtype", model.dtype, raising=False)
        with pytest.raises(KeyboardInterrupt):
            tree.read(tree.root, PROMPT)
    assert not tree.root.children
    check(model, tree.read(tree.read(tree.root, PROMPT[:1], conditioning=True), PROMPT[1:]), 1)


def test_a_forward_that_is_interrupted_between_layers_drops_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first layer has stored its states when the second is interrupted; all tokens are then read again."""
    model = tiny_model()
    tree = KVTree(model)
    prompt = tree.read(tree.root, PROMPT, conditioning=True)

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(model.model.layers[-1], "forward", interrupted)
        tree.grow([(prompt, [20, 21])])
    assert not tree.root.children
    fed = tree.tokens_fed
    again = tree.read(tree.root, PROMPT, conditioning=True)
    (end,) = tree.grow([(again, [20, 21])])
    check(model, end, len(PROMPT))
    assert tree.tokens_fed == fed + len(PROMPT) + 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_branch_from_within_the_prompt(kind: str) -> None:
    """A node of the prompt without log-probabilities is read again, so that its new child has the right total."""
    model = KINDS[kind]()
    tree = KVTree(model)
    middle = tree.read(tree.root, PROMPT, conditioning=True).path()[3]
    assert middle.logp is None
    (grown,) = tree.grow([(middle, [20, 21])])
    check(model, grown, 4)
    assert tree.tokens_fed == len(PROMPT) + 3
    (known,) = tree.grow([(tree.root, PROMPT[:3])])  # a known end without log-probabilities is read again too
    check(model, known, 3)
    assert tree.tokens_fed == len(PROMPT) + 4


def test_room_for_later_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Later groups are kept while all fit into the room, or into twice the first group: 11 + 2 into 22, not 11 + 14."""
    monkeypatch.setattr("logitkit.processors.engine.kv_tree.ROOM", 4)
    tree = KVTree(tiny_model())
    prompt = tree.read(tree.root, PROMPT, conditioning=True)
    first, second, *others = tree.grow([(prompt, [token, token]) for token in range(20, 28)])
    assert tree.keep([[first], [second]]) == 2
    assert tree.keep([[first], others, [second]]) == 1


def test_a_tree_with_room_keeps_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a tree says that it has room, `keep` keeps all groups and drops nothing; each `keep` allows a few more."""
    monkeypatch.setattr("logitkit.processors.engine.kv_tree.SLACK", 8)
    tree = KVTree(tiny_model())
    prompt = tree.read(tree.root, PROMPT[:4], conditioning=True)
    ends, said = [prompt], set()
    for token in range(20, 40):
        ends += tree.grow([(prompt, [token])])
        slots, has_room = len(tree._slots), tree.has_room
        said.add(has_room)
        if has_room and token % 3 == 0:
            assert tree.keep([[end] for end in ends]) == len(ends) and len(tree._slots) == slots
        elif not has_room:
            tree.keep([ends[-1:]])
            ends = [prompt, ends[-1]]
            assert tree.has_room
    assert said == {True, False}
