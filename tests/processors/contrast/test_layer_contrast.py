"""DoLa: worked example, slow reference with whole forwards, candidates as published, and its cost."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import logitkit
from fakes import absolute_model
from logitkit.errors import ModelError, ParameterError
from logitkit.processors.contrast import dola
from logitkit.processors.contrast.layer_contrast import candidate_layers
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from reference.fixed_streams import logits_with_ties


def test_worked_example() -> None:
    """The second layer differs more from (.6, .3, .1): 3 against 3/4, and the third token is below .2 of .6."""
    final = torch.tensor([[0.6, 0.3, 0.1]]).log()
    layers = torch.tensor([[[0.6, 0.3, 0.1], [0.2, 0.4, 0.4]]]).log()
    torch.testing.assert_close(dola(final, layers, alpha=0.2).exp(), torch.tensor([[0.8, 0.2, 0.0]]))
    torch.testing.assert_close(dola(final, layers[:, :1]).exp(), torch.full((1, 3), 1 / 3))  # equal layers: uniform


def slow(final: Tensor, layers: Tensor, alpha: float) -> Tensor:
    """Return DoLa of one row in plain Python: ``final`` [vocab], ``layers`` [layers, vocab]."""
    p = final.double().softmax(-1).tolist()
    candidates = [layer.double().softmax(-1).tolist() for layer in layers]

    def js(q: list[float]) -> float:
        middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        return sum(x * math.log(x / m) / 2 for law in (p, q) for x, m in zip(law, middle, strict=True) if x)

    q = max(candidates, key=js)
    kept = [a >= alpha * max(p) * (1 - 1e-6) for a in p]
    scores = [math.log(a / b) if keep else -math.inf for a, b, keep in zip(p, q, kept, strict=True)]
    return torch.tensor(scores).log_softmax(-1)


@given(seed=st.integers(0, 999), alpha=st.sampled_from([0.1, 0.5, 1.0]))
@settings(max_examples=40, deadline=None)
def test_equals_the_slow_reference(seed: int, alpha: float) -> None:
    """Each row of a batch has its own layer."""
    final = logits_with_ties(seed)
    layers = 3 * torch.randn(4, 3, 20, generator=torch.Generator().manual_seed(seed))
    got = dola(final, layers, alpha=alpha)
    for row in range(4):
        torch.testing.assert_close(got[row], slow(final[row], layers[row], alpha), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("layers", "count", "tied", "want"),
    [
        ("low", 32, False, list(range(0, 16, 2))),  # the authors' 0,2,...,14 of LLaMA-7B
        ("high", 32, False, list(range(16, 32, 2))),  # the authors' 16,18,...,30
        ("low", 60, False, list(range(0, 20, 2))),
        ("high", 60, False, list(range(40, 60, 2))),
        ("low", 30, True, list(range(2, 15, 2))),
        ("low", 2, True, [1]),
        ("high", 7, False, [3, 5]),
        ([4, 1, 4], 6, False, [1, 4]),
    ],
)
def test_candidates(layers: Any, count: int, tied: bool, want: list[int]) -> None:
    """Buckets of at most 20 layers, even layers, and no embedding where the head is tied to it."""
    assert candidate_layers(layers, count, tied=tied) == want


@pytest.mark.parametrize("make", [tiny_model, absolute_model])
def test_generation_equals_whole_forwards_and_reads_nothing_more(make: Any) -> None:
    """Every step of a padded batch equals the hidden states of a forward over the whole row; no reader reads."""
    model = make()
    call = logitkit.chain("dola([0, 1])").bind(model, tiny_tokenizer(), ["a prompt", "another prompt"], trace=True)
    output = call.generate(max_new_tokens=6, do_sample=False, output_scores=True, return_dict_in_generate=True)
    for step, scores in enumerate(output.scores):
        for row in range(2):
            own = [*call.prompts.tokens(row), *output.sequences[row, call.prompts.width :][:step].tolist()]
            whole = model(torch.tensor([own]), output_hidden_states=True)
            states = torch.stack([whole.hidden_states[layer][0, -1] for layer in (0, 1)])
            want = slow(whole.logits[0, -1].float(), model.get_output_embeddings()(states).float(), 0.1)
            torch.testing.assert_close(scores[row], want, rtol=1e-3, atol=1e-3)
    assert set(call.trace.forwards.values()) == {0}
    assert {step.notes["layer"] for step in call.trace.steps} <= {0, 1}


@torch.no_grad()
def test_other_rows_are_read_by_the_reader() -> None:
    """Rows of no forward, and scores that a step changed, give what a whole forward gives."""
    call = logitkit.chain("dola([1])").bind(tiny_model(), tiny_tokenizer(), ["a prompt"])
    rows = torch.cat([call.inputs["input_ids"], torch.tensor([[3, 9]])], dim=1)
    whole = tiny_model()(rows, output_hidden_states=True)
    layer = tiny_model().lm_head(whole.hidden_states[1][:, -1:])
    got = call.composite(rows, whole.logits[:, -1] / 2)
    torch.testing.assert_close(got, dola(whole.logits[:, -1] / 2, layer), rtol=1e-4, atol=1e-4)
    assert call.composite.parts[0][1].premature.captured.misses == 1


def test_wrong_layers_and_models_are_refused() -> None:
    """The errors name the rule: a layer of the model, and a model without an encoder."""
    for layers in ([], [2], [-1]):
        with pytest.raises(ParameterError, match="dola: layers must be 'low', 'high', or numbers >= 0 and < 2"):
            logitkit.chain([{"name": "dola", "params": {"layers": layers}}]).bind(
                tiny_model(), tiny_tokenizer(), "a prompt"
            )
    from fakes import encoder_decoder_model

    with pytest.raises(ModelError, match="must be decoder-only"):
        logitkit.chain("dola").bind(encoder_decoder_model(), tiny_tokenizer(), "a prompt")
