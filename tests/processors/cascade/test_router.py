"""The router processor: its routing equals recomputation, and it refuses heads of other models."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import logitkit
from fakes import router_head
from logitkit.errors import ModelError, ParameterError
from logitkit.processors.cascade import Router, RouterHead, router_features, rules, uncertainty
from logitkit.registry.laws import parametrize_with_laws, tiny_model, tiny_tokenizer
from reference.recompute import Recompute

PROMPTS = ["one prompt", "a second, longer prompt", "three"]


def bound(text: str, prompts: Any = PROMPTS, **options: Any) -> Any:
    """Bind a chain to two tiny models."""
    return logitkit.chain(text).bind(tiny_model(), tiny_tokenizer(), prompts, big=tiny_model(1), **options)


class Compared:
    """Compares every step of a bound router with hidden state, features and large model recomputed row by row."""

    def __init__(self, call: Any, head: RouterHead) -> None:
        self.router, self.head, self.prompts = call.composite.parts[0][1], head, call.prompts
        self.routed: list[bool] = []
        own = [call.prompts.tokens(number) for number in range(len(call.prompts))]
        self.large = Recompute(tiny_model(1), own, call.prompts.ids)

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        got, large = self.router(input_ids, scores), self.large(input_ids)
        for row, prompt in enumerate(self.prompts.rows(input_ids).tolist()):
            ids = self.prompts.tokens(prompt) + input_ids[row, self.prompts.width :].tolist()
            out = tiny_model()(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False)
            hidden, logits = out.hidden_states[-1][:, -1], out.logits[:, -1]
            embed = tiny_model().get_input_embeddings()
            features = router_features(hidden, logits, embed, self.head.config.top_logits)
            self.routed.append(bool(self.head(features) > self.router.threshold))
            want = large[row] if self.routed[-1] else scores[row]
            torch.testing.assert_close(got[row].softmax(-1), want.softmax(-1), atol=1e-4, rtol=0)
        return got


@pytest.mark.parametrize("mode", [{"do_sample": True, "top_k": 0}, {"num_beams": 3}])
def test_equals_recomputation(mode: dict[str, Any]) -> None:
    """Under sampling and beam search of padded prompts, every routing decision equals the recomputed one."""
    head = router_head(tiny_model(), tiny_tokenizer())
    call = bound("router(large='big', head='mine', threshold=0.5)", mine=head)
    compared = Compared(call, head)
    torch.manual_seed(0)
    settings = {"max_new_tokens": 6, "do_sample": False} | mode
    tiny_model().generate(**call.inputs, logits_processor=[compared], **settings)
    assert 0 < sum(compared.routed) < len(compared.routed)
    assert call.trace.forwards["hidden states of the generating model"] == 0


@pytest.mark.parametrize(("head", "threshold"), [("entropy", 0.985), ("margin", 0.97), ("aleatoric", 0.945)])
def test_training_free_scores_route_some_rows(head: str, threshold: float) -> None:
    """Each routed step costs one large forward, and the trace reports rate and activated parameters."""
    call = bound(f"router(large='big', head='{head}', threshold={threshold})", "one prompt")
    call.generate(max_new_tokens=20, do_sample=False)
    means = call.trace.means["router"]
    assert 0 < means["routed"] < 1
    assert call.trace.forwards["big"] == round(means["routed"] * call.trace.rows)
    counts = tiny_model().num_parameters(), tiny_model(1).num_parameters()
    assert means["activated parameters"] == pytest.approx(counts[0] + means["routed"] * counts[1])


@pytest.mark.parametrize(("head", "threshold"), [("entropy", 1 - 2.718281828459045**-0.45), ("margin", 0.5)])
def test_a_score_has_its_own_default_threshold(head: str, threshold: float) -> None:
    """Without a threshold in the chain the router uses the default of its score."""
    router = bound(f"router(large='big', head='{head}')").composite.parts[0][1]
    assert router.threshold == pytest.approx(threshold)


def variant(name: str, example: str, **resources: str) -> Any:
    """Return the registered Spec with another example, whose resources are the large model and these."""
    spec, named = logitkit.describe("router"), {"other": "model", **resources}
    return dataclasses.replace(spec, name=name, example=f"{name}({example})", example_resources=named)


@parametrize_with_laws(
    [
        variant("router_learned", "large='other', head='head', threshold=0.5", head="fakes:router_head"),
        variant("router_aleatoric", "large='other', head='aleatoric', threshold=0.945"),
    ]
)
def test_variants_keep_the_laws(check: Callable[[], None]) -> None:
    """A trained head, which reads hidden states, and another training-free score keep every law of a processor."""
    check()


def test_routed_rows_equal_the_pure_function() -> None:
    """The output of the processor equals `rules.replaced_rows` bit for bit."""
    scores = torch.tensor([[0.5, 0.5, 0.0], [0.9, 0.1, 0.0]]).log()
    logits = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    router = Router(large=lambda rows: logits, score=lambda rows, scores: uncertainty(scores), threshold=0.4)
    want = rules.replaced_rows(scores, logits, torch.tensor([True, False]))
    assert torch.equal(router(torch.zeros(2, 1).long(), scores), want)


def test_a_head_is_used_from_its_folder(tmp_path: Path) -> None:
    """A chain can name the folder of a saved head; the default threshold is that of the head."""
    head = router_head(tiny_model(), tiny_tokenizer())
    head.save(tmp_path / "mine")
    call = bound(f"router(large='big', head={str(tmp_path / 'mine')!r})")
    assert call.composite.parts[0][1].threshold == head.threshold
    call.generate(max_new_tokens=2, do_sample=False)


def test_a_head_of_another_pair_is_refused() -> None:
    """Another large or small model raises a ModelError; the same model in bfloat16 is accepted."""
    chain, head = logitkit.chain("router(large='big', head='mine')"), router_head(tiny_model(), tiny_tokenizer())
    with pytest.raises(ModelError, match="trained for this pair of models, got one for another large"):
        chain.bind(tiny_model(), tiny_tokenizer(), "a", big=tiny_model(2), mine=head)
    with pytest.raises(ModelError, match="got one for another small"):
        chain.bind(tiny_model(3), tiny_tokenizer(), "a", big=tiny_model(1), mine=head)
    half = copy.deepcopy(tiny_model(1)).to(torch.bfloat16)
    assert chain.bind(tiny_model(), tiny_tokenizer(), "a", big=half, mine=head)


def test_bad_parameters_are_refused() -> None:
    """A threshold outside 0 to 1, an unknown score and a resource that is no head raise an error."""
    with pytest.raises(ParameterError, match=r"router: threshold must be .* got 1\.5"):
        logitkit.chain("router(large='big', threshold=1.5)")
    with pytest.raises(ParameterError, match="router: head must be one of entropy, margin, aleatoric, a folder"):
        bound("router(large='big', head='entropie')")
    with pytest.raises(ModelError, match="head 'mine' must be a RouterHead, got int"):
        bound("router(large='big', head='mine')", mine=3)
