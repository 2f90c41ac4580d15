"""The router: its head learns, is saved and refused for other pairs; its routing equals recomputation."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import logitkit
from fakes import router_head
from logitkit.errors import FileFormatError, ModelError, ParameterError
from logitkit.processors.cascade.router_head import Network, RouterHead, Shape, features, threshold_for_recall
from logitkit.registry.laws import parametrize_with_laws, tiny_model, tiny_tokenizer
from reference.recompute import Recompute

PROMPTS = ["one prompt", "a second, longer prompt", "three"]
PAIR = {"small": tiny_model(), "large": tiny_model(1), "tokenizer": tiny_tokenizer()}


def bound(text: str, prompts: Any = PROMPTS, **more: Any) -> Any:
    """The chain between two tiny models."""
    return logitkit.chain(text).bind(tiny_model(), tiny_tokenizer(), prompts, big=tiny_model(1), **more)


class Slow:
    """Hidden state, features and large law of every row from scratch; compares every step."""

    def __init__(self, call: Any, head: RouterHead) -> None:
        self.fast, self.head, self.prompts, self.routed = call.composite.parts[0][1], head, call.prompts, []
        own = [call.prompts.tokens(n) for n in range(len(call.prompts))]
        self.large = Recompute(tiny_model(1), own, call.prompts.ids)

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        got, large = self.fast(input_ids, scores), self.large(input_ids)
        for row, prompt in enumerate(self.prompts.rows(input_ids).tolist()):
            ids = self.prompts.tokens(prompt) + input_ids[row, self.prompts.width :].tolist()
            out = tiny_model()(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False)
            hidden, logits = out.hidden_states[-1][:, -1], out.logits[:, -1]
            seen = features(hidden, logits, tiny_model().get_input_embeddings(), self.head.shape.top)
            self.routed.append(bool(self.head(seen) > self.fast.threshold))
            want = large[row] if self.routed[-1] else scores[row]
            torch.testing.assert_close(got[row].softmax(-1), want.softmax(-1), atol=1e-4, rtol=0)
        return got


@pytest.mark.parametrize("mode", [{"do_sample": True, "top_k": 0}, {"num_beams": 3}])
def test_equals_recomputation(mode: dict[str, Any]) -> None:
    """Samples and beams of padded prompts; the small model is overheard, not read again."""
    head = router_head(tiny_model(), tiny_tokenizer())
    call = bound("router(large='big', head='mine', threshold=0.5)", mine=head)
    slow = Slow(call, head)
    torch.manual_seed(0)
    settings = {"max_new_tokens": 6, "do_sample": False} | mode
    tiny_model().generate(**call.inputs, logits_processor=[slow], **settings)
    assert 0 < sum(slow.routed) < len(slow.routed)
    assert call.trace.forwards["its hidden states"] == 0


@pytest.mark.parametrize(("head", "threshold"), [("entropy", 0.985), ("margin", 0.97), ("aleatoric", 0.945)])
def test_training_free_heads(head: str, threshold: float) -> None:
    """Route where unsure: exactly the rows whose score is above the threshold go to the large model."""
    call = bound(f"router(large='big', head='{head}', threshold={threshold})", "one prompt")
    call.generate(max_new_tokens=20, do_sample=False)
    assert 0 < call.trace.means["router"]["routed"] < 1
    assert call.trace.forwards["big"] == round(call.trace.means["router"]["routed"] * call.trace.rows)
    sizes = tiny_model().num_parameters(), tiny_model(1).num_parameters()
    want = sizes[0] + call.trace.means["router"]["routed"] * sizes[1]
    assert call.trace.means["router"]["activated parameters"] == pytest.approx(want)


def variant(name: str, example: str, **resources: str) -> Any:
    """Return the registered Spec with another example, which names these resources beside the large model."""
    spec, named = logitkit.describe("router"), {"other": "model", **resources}
    return dataclasses.replace(spec, name=name, example=f"{name}({example})", example_resources=named)


@parametrize_with_laws(
    [
        variant("router_learned", "large='other', head='head', threshold=0.5", head="fakes:router_head"),
        variant("router_aleatoric", "large='other', head='aleatoric', threshold=0.945"),
    ]
)
def test_variants_keep_the_laws(check: Callable[[], None]) -> None:
    """A trained head too, which looks at hidden states."""
    check()


def examples(count: int = 600) -> tuple[Tensor, Tensor, Shape]:
    """Features of which one hidden number decides the label."""
    shape = Shape(hidden=6, embedding=4, top=5, width=16, blocks=1)
    rows = torch.randn(count, 15, generator=torch.Generator().manual_seed(0))
    return rows, (rows[:, 2] > 1).long(), shape


def test_it_learns_and_keeps_its_recall() -> None:
    """What one number decides is found: held-out recall of .95 at a rate near the base rate; twice the same."""
    rows, labels, shape = examples()
    heads = [RouterHead.fit(rows, labels, shape, **PAIR, epochs=30, batch=64, rate=3e-3) for _ in range(2)]
    assert heads[0].report["recall"] >= 0.95
    assert heads[0].report["rate"] < 2 * heads[0].report["base_rate"]
    assert torch.equal(heads[0](rows), heads[1](rows)) and heads[0].threshold == heads[1].threshold


def test_training_stops_early() -> None:
    """Labels of pure chance: the held-out loss turns up long before the last epoch."""
    rows, _, shape = examples()
    labels = torch.randint(0, 2, (len(rows),), generator=torch.Generator().manual_seed(1))
    head = RouterHead.fit(rows, labels, shape, **PAIR, epochs=300, patience=5, batch=64, rate=1e-2)
    assert head.report["epochs"] < 300 and head.report["best_epoch"] == head.report["epochs"] - 6


@pytest.mark.parametrize(("recall", "want"), [(1.0, 0.1), (0.75, 0.2), (0.5, 0.5), (0.25, 0.8)])
def test_the_threshold_by_hand(recall: float, want: float) -> None:
    """Positives at .105, .205, .505, .805: the highest grid point that still catches the share."""
    scores, labels = torch.tensor([0.105, 0.205, 0.505, 0.805, 0.9, 0.3]), torch.tensor([1, 1, 1, 1, 0, 0])
    assert threshold_for_recall(scores, labels, recall) == want


def test_features_by_hand() -> None:
    """Hidden state, embedding of the likeliest token, and the largest logits relative to the best."""
    logits = torch.tensor([[1.0, 4.0, 3.0, -torch.inf]])
    got = features(torch.tensor([[7.0]]), logits, lambda ids: ids[:, None].float(), top=5)
    torch.testing.assert_close(got, torch.tensor([[7.0, 1.0, 0.0, -1.0, -3.0, -50.0, -50.0]]))


def test_a_head_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    """safetensors and JSON; the same probabilities, threshold and report; used by its folder's name."""
    rows, labels, shape = examples()
    head = RouterHead.fit(rows, labels, shape, **PAIR, epochs=2, batch=64)
    head.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.json", "head.safetensors"]
    again = RouterHead.load(tmp_path)
    assert torch.equal(again(rows), head(rows))
    assert (again.threshold, again.pair, again.report) == (head.threshold, head.pair, head.report)
    mine = router_head(tiny_model(), tiny_tokenizer())
    mine.save(tmp_path / "mine")
    call = bound(f"router(large='big', head={str(tmp_path / 'mine')!r})")
    assert call.composite.parts[0][1].threshold == mine.threshold
    call.generate(max_new_tokens=2, do_sample=False)


def test_a_head_of_another_pair_is_refused() -> None:
    """Another large model, another small one; a model in bfloat16 is the same model."""
    head = router_head(tiny_model(), tiny_tokenizer())
    text = "router(large='big', head='mine')"
    with pytest.raises(ModelError, match="trained for this pair of models, got one for another large"):
        logitkit.chain(text).bind(tiny_model(), tiny_tokenizer(), "a", big=tiny_model(2), mine=head)
    with pytest.raises(ModelError, match="got one for another small"):
        logitkit.chain(text).bind(tiny_model(3), tiny_tokenizer(), "a", big=tiny_model(1), mine=head)
    import copy

    half = copy.deepcopy(tiny_model(1)).to(torch.bfloat16)
    assert logitkit.chain(text).bind(tiny_model(), tiny_tokenizer(), "a", big=half, mine=head)


@pytest.mark.parametrize("spoil", ["json", "kind", "weights", "nan", "shape", "missing"])
def test_a_damaged_head_is_refused(tmp_path: Path, spoil: str) -> None:
    """By a named error, before anything is used."""
    rows, labels, shape = examples()
    RouterHead.fit(rows, labels, shape, **PAIR, epochs=1).save(tmp_path)
    facts, weights = tmp_path / "head.json", tmp_path / "head.safetensors"
    told = json.loads(facts.read_text())
    if spoil == "json":
        facts.write_text("{")
    elif spoil == "kind":
        facts.write_text(json.dumps(told | {"kind": "another"}))
    elif spoil == "shape":
        facts.write_text(json.dumps(told | {"shape": told["shape"] | {"width": 9}}))
    elif spoil == "weights":
        weights.write_bytes(weights.read_bytes()[:-7])
    elif spoil == "missing":
        weights.unlink()
    else:
        state = load_file(weights)
        save_file(state | {"mean": state["mean"] * torch.nan}, weights)
    with pytest.raises(FileFormatError, match="router head"):
        RouterHead.load(tmp_path)


def test_bad_input() -> None:
    """NaN features, one class, no examples, ranges, unknown heads."""
    rows, labels, shape = examples(20)
    spoilt = rows.clone()
    spoilt[3, 4] = torch.nan
    with pytest.raises(ParameterError, match=r"features must be finite numbers, got 'NaN or infinity in row 3'"):
        RouterHead.fit(spoilt, labels, shape, **PAIR)
    with pytest.raises(ParameterError, match="labels must be of both kinds, got '0 of 20 positive'"):
        RouterHead.fit(rows, labels * 0, shape, **PAIR)
    with pytest.raises(ParameterError, match="examples must be at least one"):
        RouterHead.fit(rows[:0], labels[:0], shape, **PAIR)
    with pytest.raises(ParameterError, match="recall must be"):
        RouterHead.fit(rows, labels, shape, **PAIR, recall=0.0)
    with pytest.raises(ParameterError, match=r"router: threshold must be .* got 1\.5"):
        logitkit.chain("router(large='big', threshold=1.5)")
    with pytest.raises(ParameterError, match="router: head must be one of entropy, margin, aleatoric, a folder"):
        bound("router(large='big', head='entropie')")
    with pytest.raises(ModelError, match="head 'mine' must be a RouterHead, got int"):
        bound("router(large='big', head='mine')", mine=3)


def test_the_network_is_as_deep_as_asked() -> None:
    """One logit a row; the number of blocks is the shape's."""
    shape = Shape(hidden=6, embedding=4, top=5, width=8, blocks=3)
    network = Network(shape)
    assert network(torch.zeros(2, 15)).shape == (2,) and len(network.blocks) == 3
