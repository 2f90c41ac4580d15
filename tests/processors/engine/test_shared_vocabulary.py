"""Pairs of models whose vocabularies differ in padding or in added tokens, in every family that pairs models."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import logitkit
from fakes import seeded
from logitkit.errors import ModelError, PromptError
from logitkit.processors.cascade import ModelPair, SpeculativeCascade
from logitkit.processors.cascade.labelling import Labeller
from logitkit.processors.contrast import CFG, Contrastive, DExperts
from logitkit.registry.laws import tiny_model, tiny_tokenizer

CHAINS = {
    "contrastive": "contrastive(amateur='m', beta=0.5)",
    "dexperts": "dexperts(expert='m', antiexpert='n')",
    "cascade": "cascade(large='m', rule='token_v3')",
    "chow": "cascade(large='m', rule='chow', alpha=0.9)",
    "router": "router(large='m', head='entropy', threshold=0.2)",
    "crossover": "crossover(other='m')",
    "ensemble": "ensemble(models=['m'])",
    "core": "core(models=['m'], topk=0)",
    "deepen": "deepen(models=['m'])",
}
MODES: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "top_k": 0},
    "beams": {"num_beams": 3, "do_sample": False},
}
PROMPTS = ["ab", "a longer text"]


def of_width(width: int, seed: int, **ids: int) -> Any:
    """Return a tiny Llama with this many logits; the weights of shared ids depend on the seed alone."""
    config = copy.deepcopy(tiny_model().config)
    config.vocab_size = width
    for name, token in ids.items():
        setattr(config, name, token)
    return seeded(lambda: type(tiny_model())(config), seed)


def with_tool() -> Any:
    """Return the tiny tokenizer with one more token, which has id 259."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.add_tokens(["<tool>"])
    return tokenizer


def bound(chain: str, own: tuple[int, Any], other: tuple[int, Any], prompts: Any = PROMPTS) -> Any:
    """Bind a chain to a model of this width and tokenizer, with second models of another."""
    named = {"m": of_width(other[0], 1)} | ({"n": of_width(other[0], 2)} if "'n'" in chain else {})
    tokenizers = dict.fromkeys(named, other[1])
    return logitkit.chain(chain).bind(of_width(own[0], 0), own[1], prompts, tokenizers=tokenizers, **named)


def generated(call: Any, mode: str) -> Any:
    """Return the output of a call with the scores of each step."""
    torch.manual_seed(0)
    return call.generate(max_new_tokens=5, return_dict_in_generate=True, output_scores=True, **MODES[mode])


@pytest.mark.parametrize("widths", [(272, 280), (280, 272)], ids=["large wider", "large narrower"])
@pytest.mark.parametrize("name", CHAINS)
def test_two_paddings_of_one_tokenizer(name: str, widths: tuple[int, int]) -> None:
    """Scores have the width of the generating model, and ids that one model lacks stay impossible."""
    for mode in MODES:
        call = bound(CHAINS[name], (widths[0], tiny_tokenizer()), (widths[1], tiny_tokenizer()))
        output = generated(call, mode)
        assert all(scores.shape[-1] == widths[0] and (scores[:, 272:] == -torch.inf).all() for scores in output.scores)
        assert int(output.sequences.max()) < 272 and not call.trace.notices[1:]


@pytest.mark.parametrize("name", [name for name in CHAINS if name not in ("ensemble", "core", "deepen")])
def test_an_added_token_of_one_model_is_impossible(name: str) -> None:
    """Id 259 is a token of one of the two models; a notice names it where the generating model loses it."""
    for own, other in ((with_tool(), tiny_tokenizer()), (tiny_tokenizer(), with_tool())):
        call = bound(CHAINS[name], (272, own), (280, other))
        output = generated(call, "greedy")
        assert all((scores[:, 259] == -torch.inf).all() for scores in output.scores)
        assert any("'<tool>' (259)" in notice for notice in call.trace.notices) == (len(own) == 260)


@pytest.mark.parametrize("name", ["ensemble", "core", "deepen"])
def test_an_ensemble_keeps_an_added_token_of_the_main_model(name: str) -> None:
    """An alignment loses nothing of the main model; a helper with the additional token needs no alignment."""
    call = bound(CHAINS[name], (280, with_tool()), (272, tiny_tokenizer()))
    scores = generated(call, "greedy").scores[0]
    assert (scores[:, 259] > -torch.inf).all() and (scores[:, 272:] == -torch.inf).all()
    call = bound(CHAINS[name], (272, tiny_tokenizer()), (280, with_tool()))
    assert (generated(call, "greedy").scores[0][:, 259] == -torch.inf).all()
    assert not any("tokens of m by" in notice for notice in call.trace.notices)


@pytest.mark.parametrize("widths", [(272, 280), (280, 272)])
def test_the_law_is_that_of_the_shared_ids(widths: tuple[int, int]) -> None:
    """By the formula of contrastive decoding over the 272 shared ids, from both models' own logits."""
    chain = "contrastive(amateur='m', beta=0.5, alpha=0.01)"
    call = bound(chain, (widths[0], tiny_tokenizer()), (widths[1], tiny_tokenizer()), ["ab"])
    ids = call.inputs["input_ids"]
    own, other = (
        of_width(width, seed)(ids).logits[:, -1, :272].detach().log_softmax(-1) for seed, width in enumerate(widths)
    )
    want = (own - 0.5 * other).masked_fill(own < own.amax() + torch.tensor(0.01).log(), -torch.inf).log_softmax(-1)
    got = call.composite(ids, of_width(widths[0], 0)(ids).logits[:, -1].detach())
    torch.testing.assert_close(got[:, :272], want, atol=1e-4, rtol=1e-4)


def test_padding_that_the_second_model_lacks_stands_behind_a_finished_row() -> None:
    """A fine-tune pads with its added token 279: the row that ends first is read with it, by both readers."""
    small, large = of_width(280, 0, pad_token_id=279), of_width(272, 1)
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.add_tokens([f"<{number}>" for number in range(259, 280)])
    tokenizer.pad_token = "<279>"
    chain = logitkit.chain("cascade(large='m', rule='token_v3')")
    call = chain.bind(small, tokenizer, PROMPTS, tokenizers={"m": tiny_tokenizer()}, m=large)
    first = call.generate(max_new_tokens=1, do_sample=False)[0, -1]  # the first row ends at once
    output = call.generate(max_new_tokens=5, do_sample=False, eos_token_id=int(first))
    alone = chain.bind(small, tokenizer, PROMPTS[1], tokenizers={"m": tiny_tokenizer()}, m=large)
    assert output[0, -4:].tolist() == [279] * 4
    want = alone.generate(max_new_tokens=5, do_sample=False, eos_token_id=int(first))[0, alone.prompts.width :].tolist()
    assert output[1, call.prompts.width :].tolist()[: len(want)] == want


def test_a_prompt_with_a_token_that_the_second_model_lacks_is_refused() -> None:
    """The error names the token; an ensemble reads the prompt as text instead."""
    with pytest.raises(PromptError, match=r"cascade: model 'm' must know every token .* '<tool>' in prompt 0"):
        bound(CHAINS["cascade"], (272, with_tool()), (272, tiny_tokenizer()), "a <tool> b")
    bound(CHAINS["ensemble"], (272, with_tool()), (272, tiny_tokenizer()), "a <tool> b")


def test_a_model_in_memory_without_tokenizer_names_the_cure() -> None:
    """The widths differ, and nothing says whether the ids agree."""
    with pytest.raises(ModelError, match=r"pass its tokenizer, bind\(..., tokenizers=\{'m': tokenizer\}\)"):
        logitkit.chain(CHAINS["cascade"]).bind(of_width(272, 0), tiny_tokenizer(), "ab", m=of_width(280, 1))
    with pytest.raises(ModelError, match=r"pass tokenizers=\(tokenizer, large_tokenizer\)"):
        speculated(272, 280, None)


def test_a_folder_without_tokenizer_counts_as_no_tokenizer(tmp_path: Any) -> None:
    """One width: the pair is accepted; else the error names the cure, as for a model in memory."""
    model, folder = of_width(272, 1), tmp_path / "model"
    model.save_pretrained(folder)
    (equal, wide) = (type(model).from_pretrained(folder), of_width(280, 1))
    wide.config._name_or_path = wide.name_or_path = str(folder)
    chain = logitkit.chain(CHAINS["cascade"])
    chain.bind(of_width(272, 0), tiny_tokenizer(), "ab", m=equal)
    with pytest.raises(ModelError, match="pass its tokenizer"):
        chain.bind(of_width(272, 0), tiny_tokenizer(), "ab", m=wide)
    with pytest.raises(ModelError, match="model 'm' must come with its tokenizer"):
        logitkit.chain(CHAINS["ensemble"]).bind(of_width(272, 0), tiny_tokenizer(), "ab", m=equal)


def speculated(small: int, large: int, tokenizers: Any, **settings: Any) -> list[int]:
    """Return 12 tokens of a speculative cascade of models of these widths."""
    start = torch.tensor([[65, 66]])
    cascade = SpeculativeCascade(large=of_width(large, 1), alpha=0.0, draft_length=3, tokenizers=tokenizers)
    arguments = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None} | settings
    out = of_width(small, 0).generate(start, attention_mask=start, custom_generate=cascade, **arguments)
    return list(out[0, 2:].tolist())


@pytest.mark.parametrize("widths", [(272, 280), (280, 272)])
@pytest.mark.parametrize("own", [tiny_tokenizer(), with_tool()])
def test_speculative_cascades_of_two_paddings(widths: tuple[int, int], own: Any) -> None:
    """Greedily the text is the large model's over the shared ids, and samples are shared ids."""
    tokenizers = own, tiny_tokenizer()
    small, large = of_width(widths[0], 0), of_width(widths[1], 1)
    chain = logitkit.chain("cascade(large='m', rule='token_v3', alpha=0.0, temperature=0)")
    call = chain.bind(small, own, {"input_ids": torch.tensor([[65, 66]])}, tokenizers={"m": tiny_tokenizer()}, m=large)
    want = call.generate(max_new_tokens=12, do_sample=False, eos_token_id=None)[0, 2:].tolist()
    assert speculated(*widths, tokenizers) == want
    torch.manual_seed(0)
    sampled = speculated(*widths, tokenizers, do_sample=True, top_k=0, temperature=5.0, max_new_tokens=60)
    assert max(sampled) < 272 and (len(own) == 259 or 259 not in sampled)


def test_tokenizers_of_folders_are_found(tmp_path: Any) -> None:
    """Models with a folder, as from the hub, need no tokenizers; a conflict is found there too."""
    models = []
    for number, width in enumerate((272, 280)):
        of_width(width, number).save_pretrained(tmp_path / str(width))
        tiny_tokenizer().save_pretrained(tmp_path / str(width))
        models.append(type(tiny_model()).from_pretrained(tmp_path / str(width)).eval())
    start = torch.tensor([[65, 66]])
    settings: dict[str, Any] = {"attention_mask": start, "max_new_tokens": 3, "do_sample": False}
    assert models[0].generate(start, custom_generate=SpeculativeCascade(large=models[1]), **settings).shape == (1, 5)


@pytest.mark.parametrize("widths", [(272, 280), (280, 272)])
def test_labels_of_two_paddings(widths: tuple[int, int]) -> None:
    """The large model answers with ids that both models have, so the small model can read the answer."""
    small, large = of_width(widths[0], 0), of_width(widths[1], 1)
    if widths[1] == 280:  # its favourite token is one that the small model lacks
        with torch.no_grad():
            large.lm_head.weight[272:] = 4 * large.lm_head.weight[:8]
    labels = Labeller(ModelPair(small=small, large=large, tokenizer=tiny_tokenizer()), tokens=6).label(0, "ab")
    assert max(labels.answer_ids + labels.small_ids) < 272 and len(labels.labels) == len(labels.answer_ids)


def test_narrow_streams_without_a_binding() -> None:
    """Classes that are given plain functions leave ids out that a stream has no logit for."""
    scores, rows = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[7]])

    def narrow(rows: Any) -> Any:
        return torch.zeros(1, 2)

    for processor in (
        CFG(unconditional=narrow),
        Contrastive(amateur=narrow),
        DExperts(expert=narrow, antiexpert=narrow),
    ):
        assert processor(rows, scores)[0, 2] == -torch.inf
