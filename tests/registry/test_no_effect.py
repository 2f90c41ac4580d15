"""A step that can do nothing on the prompts of a call warns once, with its name, the reason and the way out."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch

import logitkit
from command_line import logitkit_command
from logitkit.bench.execution.scored_batches import score as bench_score
from logitkit.errors import NoEffectWarning
from logitkit.processors.byte_level import ByteModel, byte_tokenizer
from logitkit.processors.ngram import NgramTable
from logitkit.registry.bind import bind
from logitkit.registry.chain import Chain
from logitkit.registry.laws import check_processor, foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer

EXAMPLES = "Double it.\nInput: 3\nOutput: 6\nInput: 4\nOutput:"


def warned(chain: str, prompts: Any = "a prompt", tokenizer: Any = None, **resources: Any) -> list[str]:
    """Bind a chain, compare its greedy text with plain decoding where it warns, and return the warnings."""
    tokenizer = tokenizer or tiny_tokenizer()
    model = foreign_model() if tokenizer is foreign_tokenizer() else tiny_model()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call = logitkit.chain(chain).bind(model, tokenizer, prompts, **resources)
    assert all(found.category is NoEffectWarning and found.filename == __file__ for found in caught)
    if caught and len(call.chain) == 1:
        plain = logitkit.generate(model, tokenizer, prompts, max_new_tokens=6, do_sample=False)
        assert call.texts(call.generate(max_new_tokens=6, do_sample=False)) == plain.texts
    return [str(found.message) for found in caught]


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        ("uscd()", "uscd changes nothing: no prompt has examples to remove; add input/output examples, give lame="),
        ("uscd(lame='a prompt')", "uscd changes nothing: every lame prompt is the prompt itself; "),
        ("cfg(2.0, negative='a prompt')", "cfg changes nothing: every negative prompt is the prompt itself; "),
        ("suppress_tokens([])", "suppress_tokens changes nothing: the list is empty; list token ids, or leave"),
        ("cfg(1.0)", "cfg changes nothing: scale 1.0 is its neutral value; give another value, or leave cfg out"),
        ("cad(context='prompt', alpha=0)", "cad changes nothing: alpha 0.0 is its neutral value; "),
        ("uscd(gate=0, lame='b')", "uscd changes nothing: gate 0.0 is its neutral value; "),
        ("ngram_context(weight=0)", "ngram_context changes nothing: weight 0.0 is its neutral value; "),
        ("ngram_context(order_weights=[0, 0, 1], context='ab')", "ngram_context changes nothing: no n-gram has an"),
        ("dexperts(expert='other', antiexpert='other')", "dexperts changes nothing: expert and antiexpert are one mod"),
        ("dry(0.0)", "dry changes nothing: multiplier 0.0 is its neutral value; "),
        ("presence_penalty(0)", "presence_penalty changes nothing: penalty 0.0 is its neutral value; "),
        ("crossover(other='other', budget=0)", "crossover changes nothing: the budget is 0; give a larger budget, or"),
        ("crossover(other='same')", "crossover changes nothing: the other model is the generating model; name another"),
        ("dexperts(expert='other', antiexpert='third')", "dexperts changes nothing: expert and antiexpert are one mod"),
    ],
)
def test_a_step_without_effect_warns(chain: str, reason: str) -> None:
    """And it is true: the text equals that of plain decoding."""
    other = tiny_model(1)
    resources = {name: other for name in ("other", "third") if f"'{name}'" in chain}
    resources |= {"same": tiny_model()} if "'same'" in chain else {}
    (warning,) = warned(chain, **resources)
    assert warning.startswith(reason)
    assert warning.endswith(f"or leave {chain.partition('(')[0]} out")


SELF = [
    ("cascade(large='o')", "cascade changes nothing: the large model is the generating model; name another model"),
    ("cascade(large='o', alpha=0.4)", "cascade changes nothing: the large model is the generating model; "),
    ("router(large='o')", "router changes nothing: the large model is the generating model; name another model"),
    ("crossover(other='o')", "crossover changes nothing: the other model is the generating model; name another"),
    ("contrastive(amateur='o')", "contrastive compares the model with itself, and only flattens and cuts"),
    ("dexperts(expert='o', antiexpert='o')", "dexperts changes nothing: expert and antiexpert are one model; name"),
    ("ensemble(models=['o'])", "ensemble changes nothing: every model that it names is the generating model, under"),
    ("ensemble(models=['o', 'o'])", "ensemble changes nothing: every model that it names is the generating model"),
    ("core(models=['o'])", "core changes nothing: every model that it names is the generating model, under the same"),
    ("deepen(models=['o'])", "deepen changes nothing: every model that it names is the generating model, under the"),
]


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize(("chain", "reason"), SELF)
def test_the_generating_model_as_the_other_one(chain: str, reason: str, copied: bool) -> None:
    """The object itself, or a copy with the same weights: the greedy text is that of plain decoding."""
    other = copy.deepcopy(tiny_model()) if copied else tiny_model()
    tokenizers = {"o": tiny_tokenizer()}
    (warning,) = warned(chain, o=other, tokenizers=tokenizers)
    assert warning.startswith(reason) and warning.endswith(f", or leave {chain.partition('(')[0]} out")


@pytest.mark.parametrize(
    "chain",
    [
        "cascade(large='o', temperature=0.5)",
        "contrastive(amateur='o', window=2)",
        "contrastive(amateur='o', temperature=0.5)",
        "dexperts(expert='o', antiexpert='p')",
        "dexperts(expert='p', antiexpert='o')",
        "ensemble(models=['o', 'p'])",
        "ensemble(models=['o'], prompts={'o': 'another prompt'})",
    ],
)
def test_the_generating_model_with_an_effect(chain: str) -> None:
    """Another temperature, another model beside it, or a prompt of its own: the chain does something."""
    others = {name: model for name, model in (("o", tiny_model()), ("p", tiny_model(1))) if f"'{name}'" in chain}
    assert not warned(chain, **others, tokenizers=dict.fromkeys(others, tiny_tokenizer()))


@pytest.mark.parametrize("place", [0, -1, 12345])
def test_a_copy_that_was_changed_is_another_model(place: int) -> None:
    """Training changes every number of a matrix, or nearly; one matrix of the copy is changed here, a little."""
    other = copy.deepcopy(tiny_model())
    weights = list(other.parameters())
    weights[place % len(weights)].data += 1e-3
    assert not warned("cascade(large='o')", o=other)


def test_a_byte_model_as_its_own_other_one() -> None:
    """The byte model, or the model behind it."""
    main = ByteModel(tiny_model(), tiny_tokenizer())
    for other in (main, tiny_model()):
        with pytest.warns(NoEffectWarning, match="byte_ensemble changes nothing: the generating model has all the"):
            logitkit.chain("byte_ensemble(models=['o'])").bind(main, byte_tokenizer(), "ab", o=other)


def test_a_single_token_is_its_own_negative_prompt() -> None:
    """By default the second stream of cfg reads the last token of the prompt."""
    assert warned("cfg(2.0)", "a")[0].startswith("cfg changes nothing: the prompt is a single token")
    assert not warned("cfg(2.0)", ["a", "ab"])


def test_byte_boundary_on_whole_tokens_and_on_chats() -> None:
    """Nothing can be given back where no prompt ends inside a token."""
    assert warned("byte_boundary()")[0].startswith("byte_boundary changes nothing: no prompt ends inside a token; ")
    chat = [{"role": "user", "content": "on th"}]
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    assert warned("byte_boundary()", chat, tokenizer)[0].startswith("byte_boundary changes nothing: chats and encoder")
    assert not warned("byte_boundary()", "on th", foreign_tokenizer())


def test_an_empty_table_is_no_style() -> None:
    """The tables of one text: with its bigrams, and with trigrams that it does not have."""
    tokenizer = tiny_tokenizer()
    table = NgramTable.train(["ab"], tokenizer, orders=3)
    assert warned("ngram_style(table='t', order_weights=[0, 0, 1])", t=table)[0].startswith("ngram_style changes noth")
    assert not warned("ngram_style(table='t')", t=table)


@pytest.mark.parametrize(
    "chain",
    [
        "temperature(1.0)",
        "top_a(0)",
        "repetition_penalty(1.0)",
        "min_new_tokens(0)",
        "cfg(1.5)",
        "top_p(0.9)",
        "ngram_context()",
    ],
)
def test_steps_with_an_effect_do_not_warn(chain: str) -> None:
    """A neutral warper switches the setting of the configuration off, which is an effect."""
    assert not warned(chain)


def test_prompts_of_which_some_have_examples() -> None:
    """The chain does something for this call."""
    assert not warned("uscd()", ["a prompt", EXAMPLES])


def test_one_warning_names_every_step() -> None:
    """Once per bind, and steps that do something are not named."""
    (warning,) = warned("uscd() | cfg(1.0) | top_p(0.9)")
    assert [line.partition(" ")[0] for line in warning.split("\n")] == ["uscd", "cfg"]


@pytest.mark.parametrize(
    "chain",
    [
        "temperature(0.7)",
        "top_k(2)",
        "temperature(2.0) | top_p(0.5)",
        "eta_cutoff(0.5)",
        "p_less() | top_n_sigma(1.0) | top_a(0.2) | tail_free(0.9)",
        "dynamic_temperature() | entropy_temperature() | quadratic()",
    ],
)
def test_warpers_under_greedy_decoding(chain: str) -> None:
    """They keep the most probable token; sampling, beams and other steps give them an effect."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    call = logitkit.chain(chain).bind(model, tokenizer, "ab")
    plain = logitkit.generate(model, tokenizer, "ab", max_new_tokens=6, do_sample=False).ids
    with pytest.warns(NoEffectWarning, match=r"changes nothing: greedy decoding .* set do_sample=True, or leave"):
        assert torch.equal(call.generate(max_new_tokens=6, do_sample=False), plain)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoEffectWarning)
        call.generate(max_new_tokens=2, do_sample=True)
        call.generate(max_new_tokens=2, do_sample=False, num_beams=2)
        logitkit.generate(model, tokenizer, "ab", chain=f"{chain} | cfg(1.5)", max_new_tokens=2, do_sample=False)
        call.warns = False
        call.generate(max_new_tokens=2, do_sample=False)


def test_benchmarks_do_not_warn() -> None:
    """Neutral values in sweeps and batches without examples are meant; neither are those of the laws."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bind(Chain("cfg(1.0)"), model, tokenizer, "a", trace=False, tokenizers=None, resources={}, warn=False)
        bench_score(Chain("uscd()"), model, tokenizer, "ab", ["c"], warn=False)
        assert not check_processor("cfg").failures
    with pytest.warns(NoEffectWarning):
        logitkit.score(model, tokenizer, "ab", "c", chain="uscd()")


@pytest.mark.model
def test_the_command_line_prints_the_warning_as_a_line() -> None:
    """On standard error, without the place in the code."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # as outside of the tests
        result = logitkit_command("run", "Once", "--chain", "uscd()", "--max-new-tokens", 1)
    assert result.exit_code == 0
    assert "\nwarning: uscd changes nothing: no prompt has examples to remove; add " in f"\n{result.stderr}"
    assert "NoEffectWarning" not in result.stderr
