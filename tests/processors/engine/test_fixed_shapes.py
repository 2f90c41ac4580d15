"""Forwards in fixed shapes give the log-probabilities of forwards in shapes of their own, and are compiled once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounter

from fakes import absolute_model, seeded, sliding_model
from logitkit.processors.engine import KVTree
from logitkit.processors.engine.fixed_shapes import COUNTS, SHORTEST, FixedLayer, FixedShapes, _padded
from logitkit.processors.engine.tree_node import Node
from logitkit.registry.laws import tiny_model

KINDS = {"rotary": tiny_model, "absolute": absolute_model, "sliding": sliding_model}
PROMPT = [5, 6, 7, 8, 9, 10, 11, 12, 13]  # longer than the window of the sliding model
STEPS = st.lists(
    st.tuples(st.sampled_from(["grow", "grow", "keep", "again", "release"]), st.integers(1, 40), st.integers(0, 99)),
    max_size=5,
)


def grown(tree: KVTree, steps: list[tuple[str, int, int]]) -> list[Node]:
    """Return all nodes that some steps reach: forks of a prompt or of nodes before, dropped and read again."""
    prompt = tree.read(tree.root, PROMPT, conditioning=True)
    ends, reached = [prompt], [prompt]
    for step, count, number in steps:
        start = ends[number % len(ends)]
        if step == "grow":
            ends = tree.grow((start, [20 + (number + fork) % 200, fork]) for fork in range(count))
        elif step == "keep":
            tree.keep([[start]])
            ends = [start]
        elif step == "again":
            middle = prompt.path()[count % len(PROMPT)]
            ends = tree.grow([(middle, [100 + number, 3])])
        else:
            tree.release()
            prompt = tree.read(tree.root, PROMPT, conditioning=True)
            ends = [prompt]
        reached += ends
    return reached


@settings(max_examples=15, deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), steps=STEPS, slack=st.integers(0, 20))
def test_equals_forwards_in_their_own_shapes(kind: str, steps: list[tuple[str, int, int]], slack: int) -> None:
    """Whatever is forked, dropped, compacted and read again, on three kinds of positions and attention."""
    model = KINDS[kind]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("logitkit.processors.engine.kv_tree.SLACK", slack)
        patch.setattr("logitkit.processors.engine.fixed_shapes.SHORTEST", 16)
        pairs = zip(grown(KVTree(model, fixed=True), steps), grown(KVTree(model, fixed=False), steps), strict=True)
        for ours, want in pairs:
            assert ours.tokens() == want.tokens() and ours.total == pytest.approx(want.total, abs=1e-4)
            torch.testing.assert_close(torch.tensor(ours.logp), torch.tensor(want.logp), atol=1e-5, rtol=0)


def test_a_mask_is_padded_by_hand() -> None:
    """One cached and one new token, padded to two new ones and four places: the padding sees its own place alone."""
    least = torch.finfo(torch.float32).min
    padded = _padded(torch.tensor([[[[0.0, 0.0]]]]), torch.Size([1, 1, 2, 4]))
    assert padded[0, 0].tolist() == [[0.0, 0.0, least, least], [least, least, 0.0, least]]


def test_states_behind_the_mask_do_not_count() -> None:
    """Memory behind the states may hold any finite number: what a padding token wrote is never seen."""
    model = tiny_model()
    tree = KVTree(model, fixed=True)
    prompt = tree.read(tree.root, PROMPT, conditioning=True)
    (first,) = tree.grow([(prompt, [20, 21, 22])])  # three tokens in a shape of four
    layers: list[Any] = tree._reader.cache.layers
    for layer in layers:
        for part in layer.reserve(SHORTEST):
            part[:, :, len(PROMPT) + 3 :] = 1e4
    (second,) = tree.grow([(first, [23])])
    want = KVTree(model, fixed=False)
    node = want.read(want.root, second.tokens(), conditioning=True)
    torch.testing.assert_close(torch.tensor(second.logp), torch.tensor(node.logp), atol=1e-5, rtol=0)


def test_inside_and_outside_of_inference_mode() -> None:
    """A tree that was begun in inference mode grows outside of it, and the other way round."""
    model = tiny_model()
    tree, want = KVTree(model, fixed=True), KVTree(model, fixed=False)
    ends = [each.read(each.root, PROMPT, conditioning=True) for each in (tree, want)]
    for token, mode in enumerate((True, False, True, True, False)):
        with torch.inference_mode(mode):
            ends = [each.grow([(end, [token])])[0] for each, end in zip((tree, want), ends, strict=True)]
        torch.testing.assert_close(torch.tensor(ends[0].logp), torch.tensor(ends[1].logp), atol=1e-5, rtol=0)


def fresh_model() -> Any:
    """The tiny model without the hooks that other tests have on it."""
    model = seeded(lambda: type(tiny_model())(tiny_model().config), 0)
    model.load_state_dict(tiny_model().state_dict())
    return model


def test_a_compiled_model_is_compiled_once_for_a_shape() -> None:
    """A model whose forward is compiled reads in fixed shapes by itself; forwards of known shapes compile nothing."""
    torch._dynamo.reset()
    counter = CompileCounter()
    model = fresh_model()
    tree, want = KVTree(model), KVTree(tiny_model(), fixed=False)
    model.forward = torch.compile(model.forward, backend=counter, dynamic=False)  # seen at the next empty cache
    ends = [each.read(each.root, PROMPT, conditioning=True) for each in (tree, want)]
    frames = []
    for number, count in enumerate((3, 4, 3, 4)):  # all in the shape of four tokens
        nodes = [
            each.grow((end, [10 * number + fork]) for fork in range(count))
            for each, end in zip((tree, want), ends, strict=True)
        ]
        ends = [each[-1] for each in nodes]
        torch.testing.assert_close(torch.tensor(ends[0].logp), torch.tensor(ends[1].logp), atol=1e-5, rtol=0)
        frames.append(counter.frame_count)
    torch._dynamo.reset()
    assert frames == [2] * 4  # that of the prompt, and that of the shape


class _Graph:
    """Stands for a CUDA graph: a replay runs the recorded forward again and writes its logits in place."""

    forward: Any = None

    def replay(self) -> None:
        """Run the forward."""
        logits, run = type(self).forward
        logits.copy_(run())


def test_the_second_forward_of_a_shape_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first runs as it is, the second is recorded, later ones repeat the record; a hook or training does not."""
    model, recorded = fresh_model(), []

    def record(self: FixedShapes, shape: Any) -> Any:
        recorded.append(len(shape.slots))
        logits = self._run(shape).clone()
        _Graph.forward = logits, lambda: self._run(shape)
        return _Graph(), logits

    monkeypatch.setattr(FixedShapes, "_recorded", record)
    tree, want = KVTree(model, fixed=True), KVTree(model, fixed=False)
    ends = [each.read(each.root, PROMPT, conditioning=True) for each in (tree, want)]
    tree._reader._fixed.records = True  # type: ignore[union-attr]
    for token in range(5):
        ends = [each.grow([(end, [token])])[0] for each, end in zip((tree, want), ends, strict=True)]
        torch.testing.assert_close(torch.tensor(ends[0].logp), torch.tensor(ends[1].logp), atol=1e-5, rtol=0)
        assert recorded == ([] if token == 0 else [1])
    seen: list[int] = []
    handle = model.model.layers[0].register_forward_hook(lambda *_: seen.append(1))
    tree.grow([(ends[0], [7])])
    handle.remove()
    assert seen == [1]


def test_a_layer_writes_in_place() -> None:
    """By hand: two states at the places 1 and 2 of four; the memory stays the same."""
    slots, room = torch.tensor([1, 2]), torch.zeros(1, 1, 4, 1)
    layer = FixedLayer(room, room.clone(), slots)
    keys, _ = layer.update(torch.tensor([[[[5.0], [6.0]]]]), torch.zeros(1, 1, 2, 1))
    assert keys is room and keys.flatten().tolist() == [0, 5, 6, 0] and list(COUNTS) == sorted(COUNTS)
