"""Sequence classifiers and reward models as the scorers of `attribute`."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.processors.samplers.attribute_calls import A, B, C, bound, classifier, following
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForSequenceClassification,
)

from logitkit.processors.samplers import attribute
from logitkit.processors.samplers.attribute_reading import reads_along
from logitkit.registry.laws import foreign_tokenizer, tiny_tokenizer
from logitkit.registry.laws.tiny_models import WIDTH, llama_config, seeded

BERT = BertConfig(vocab_size=WIDTH, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)


def sliding_classifier() -> Any:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = MistralConfig(vocab_size=WIDTH, num_hidden_layers=1, sliding_window=4, pad_token_id=0, **sizes)
    return seeded(1, lambda: MistralForSequenceClassification(config))


@pytest.mark.parametrize("kind", ["bert", "sliding"])
def test_other_classifiers_read_rows_whole(kind: str) -> None:
    """A bidirectional model, and one whose layers have a window: the values of forwards over each row."""
    model = sliding_classifier() if kind == "sliding" else seeded(1, lambda: BertForSequenceClassification(BERT))
    call = bound("attribute({'model': 'kind', 'label': 1}, top=2)", ["a prompt", "ab"], kind=model)
    rows, scores = following(call, "xyz"), torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(0))
    got, logp = call.composite(rows, scores), scores.log_softmax(-1)
    for number in range(2):
        own = [*call.prompts.tokens(number), *rows[number, call.prompts.width :].tolist()]
        for token in logp[number].topk(2).indices.tolist():
            with torch.no_grad():
                logits = [model(torch.tensor([row])).logits for row in ([*own, token], own)]
            after, before = (float(each.log_softmax(-1)[0, 1]) for each in logits)
            assert math.isclose(float(got[number, token]), float(logp[number, token]) + after - before, abs_tol=1e-4)


def test_a_classifier_reads_rows_without_padding() -> None:
    """Each value is that of a forward over the row alone; beside it, a reward model of one label."""
    model = classifier(3)
    call = bound("attribute({'model': 'kind', 'label': 'kind 2'}, top=5)", ["a prompt", "ab"], kind=model)
    rows = following(call, "xy")
    scores = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(0))
    got, logp = call.composite(rows, scores), scores.log_softmax(-1)

    def value(row: list[int]) -> float:
        with torch.no_grad():
            return float(model(torch.tensor([row])).logits.log_softmax(-1)[0, 2])

    for number in range(2):
        own = [*call.prompts.tokens(number), *rows[number, call.prompts.width :].tolist()]
        for token in logp[number].topk(5).indices.tolist():
            want = float(logp[number, token]) + value([*own, token]) - value(own)
            assert math.isclose(float(got[number, token]), want, abs_tol=1e-4)
    reward = bound("attribute('kind', top=2)", kind=classifier(1))
    shifted = reward.composite(following(reward), scores[:1]) - logp[:1]
    assert int(torch.isfinite(shifted).sum()) == 2 and float(shifted[torch.isfinite(shifted)].abs().amin()) > 0


@pytest.mark.parametrize("along", [True, False])
def test_a_classifier_reads_rows_in_any_order(along: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permuted, repeated and shortened rows have the values of rows that were never read before."""
    if not along:
        monkeypatch.setattr(attribute, "reads_along", lambda model: False)
    chain, generator = "attribute({'model': 'kind', 'label': 1}, top=6)", torch.Generator().manual_seed(4)
    model, prompts = classifier(3), ["a prompt", "ab"]
    used = bound(chain, prompts, kind=model)
    rows = following(used).repeat_interleave(2, 0)
    for turn in range(9):
        scores = torch.randn(4, WIDTH, generator=generator)
        want = bound(chain, prompts, kind=model).composite(rows, scores)
        torch.testing.assert_close(used.composite(rows, scores), want, rtol=1e-4, atol=1e-4)
        rows = torch.cat([rows, torch.tensor([[A], [B], [C], [A]])], dim=1)
        rows = [rows, rows[[1, 0, 3, 3]], rows[:, :-2]][turn % 3]


def test_a_causal_classifier_reads_along() -> None:
    """A forward a step of the newest token and the candidates; other classifiers read each continuation whole."""
    model, fed = classifier(3), []
    model.base_model.register_forward_pre_hook(
        lambda _, args, inputs: fed.append(tuple((args[0] if args else inputs["input_ids"]).shape)), with_kwargs=True
    )
    call = bound("attribute({'model': 'kind', 'label': 1}, top=6)", ["a prompt", "ab"], kind=model)
    fed.clear()  # of the check
    call.generate(max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert fed == [(2, call.prompts.width + 6), (2, 7), (2, 7), (2, 7)]
    assert not reads_along(sliding_classifier()) and not reads_along(BertForSequenceClassification(BERT))


def test_a_classifier_with_another_tokenizer_reads_texts() -> None:
    """Its tokenizer encodes the text of the row."""
    config = llama_config(300, foreign_tokenizer())
    config.num_labels = 1
    model = seeded(5, lambda: LlamaForSequenceClassification(config))
    tokenizers = {"kind": foreign_tokenizer()}
    call = bound("attribute('kind', top=1)", "the other", kind=model, tokenizers=tokenizers)
    scores = torch.zeros(1, WIDTH)
    r = tiny_tokenizer().convert_tokens_to_ids("r")
    scores[0, r] = 1.0
    shift = call.composite(call.prompts.ids, scores)[0, r] - scores.log_softmax(-1)[0, r]

    def value(text: str) -> float:
        with torch.no_grad():
            return float(model(**foreign_tokenizer()(text, return_tensors="pt")).logits)

    assert math.isclose(float(shift), value("the otherr") - value("the other"), abs_tol=1e-4)
