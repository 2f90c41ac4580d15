"""Chains in transformers' continuous batching: the tokens of `generate`, and errors of single requests."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
from engine_prompts import PROMPTS, TOKENS_ONLY_CHAINS
from transformers import ContinuousBatchingConfig, GenerationConfig

import logitkit
from logitkit.adapters.continuous_batching import install, synchronous
from logitkit.errors import ModeError, UnknownNameError
from logitkit.processors.ngram import NgramTable
from logitkit.registry.laws import tiny_model, tiny_tokenizer

NEW = 10


def manager_of(**settings: Any) -> Any:
    """Return a manager over a copy of the tiny model, with few pages."""
    config = synchronous(num_blocks=64, max_batch_tokens=64, auto_switch_to_flash=False)
    generation = GenerationConfig(
        **{"max_new_tokens": NEW, "do_sample": False, "eos_token_id": tiny_tokenizer().eos_token_id, **settings}
    )
    model = copy.deepcopy(tiny_model())
    return model.init_continuous_batching(generation_config=generation, continuous_batching_config=config)


def results(manager: Any, requests: Sequence[tuple[str, str | None]]) -> list[Any]:
    """Return the results of requests (prompt and chain), which are all in the queue before the first step."""
    for number, (prompt, chain) in enumerate(requests):
        named = {} if chain is None else {"logitkit": chain}
        manager.add_request(tiny_tokenizer()(prompt)["input_ids"], request_id=str(number), **named)
    found: dict[str, Any] = {}
    manager.start()
    try:
        while len(found) < len(requests):
            result = manager.get_result(timeout=60)
            assert result is not None, "the manager died"
            if result.is_finished():
                found[result.request_id] = result
    finally:
        manager.stop(block=True)
    return [found[str(number)] for number in range(len(requests))]


def expected(prompt: str, chain: str) -> list[int]:
    """Return the tokens of `generate`."""
    call = logitkit.chain(chain).bind(tiny_model(), tiny_tokenizer(), prompt)
    new = call.generate(do_sample=False, max_new_tokens=NEW)[0, call.prompts.width :]
    return [int(token) for token in new]


def test_the_tokens_are_those_of_generate(tmp_path: Any) -> None:
    """Eight chains on five prompts in one queue, where requests of different lengths and chains share forwards."""
    table = str(tmp_path / "table.safetensors")
    NgramTable.train(["the text of a prompt", "one two three"], tiny_tokenizer()).save(table)
    requests = [(prompt, chain.replace("TABLE", table)) for chain in TOKENS_ONLY_CHAINS for prompt in PROMPTS]
    manager = manager_of()
    install(manager, tiny_tokenizer())
    for (prompt, chain), result in zip(requests, results(manager, requests), strict=True):
        assert result.error is None and result.generated_tokens == expected(prompt, chain), chain


def test_the_default_chain_is_that_of_requests_without_one() -> None:
    """A request's own chain replaces it; an empty one means plain decoding."""
    manager, default = manager_of(), "no_repeat_ngram(2)"
    install(manager, tiny_tokenizer(), default)
    requests = [(PROMPTS[1], None), (PROMPTS[1], ""), (PROMPTS[1], "frequency_penalty(1.5)")]
    got = [result.generated_tokens for result in results(manager, requests)]
    assert got == [expected(PROMPTS[1], chain) for chain in (default, "", "frequency_penalty(1.5)")]


def test_a_wrong_request_fails_alone() -> None:
    """An unknown name, a method with a model, a search, an impossible row: one error each, and the others go on."""
    every = list(range(tiny_model().config.vocab_size))
    wrong = {
        "usdc()": "did you mean 'uscd'",
        "cfg(1.5)": "cfg: cannot run in continuous batching: it needs extra forwards",
        "smc(particles=4)": "replaces the loop",
        f"suppress_tokens({every})": "suppress_tokens",
    }
    manager = manager_of()
    install(manager, tiny_tokenizer())
    requests: list[tuple[str, str | None]] = [(PROMPTS[0], chain) for chain in wrong] + [(PROMPTS[1], None)]
    *failed, right = results(manager, requests)
    for result, says in zip(failed, wrong.values(), strict=True):
        assert says in result.error and len(result.generated_tokens) <= 1
    assert right.error is None and right.generated_tokens == expected(PROMPTS[1], "")


def test_what_cannot_run_is_refused_before_the_start() -> None:
    """Chains that need a model, settings without known tokens, and two owners of the order of warpers."""
    with pytest.raises(ModeError, match="cannot run in continuous batching"):
        install(manager_of(), tiny_tokenizer(), "byte_boundary()")
    with pytest.raises(UnknownNameError):
        install(manager_of(), tiny_tokenizer(), "usdc()")
    with pytest.raises(ModeError, match="temperature must be left to the chain"):
        install(manager_of(do_sample=True, temperature=0.5), tiny_tokenizer(), "top_p(0.9)")
    manager = manager_of()
    manager.continuous_batching_config = ContinuousBatchingConfig(use_async_batching=True)
    with pytest.raises(ModeError, match="synchronous"):
        install(manager, tiny_tokenizer())
    manager = manager_of()
    manager.start()
    try:
        with pytest.raises(ModeError, match="a manager that runs"):
            install(manager, tiny_tokenizer())
    finally:
        manager.stop(block=True)


def test_sampling_follows_the_chain_and_then_the_config() -> None:
    """The chain comes first: its one token is what the temperature of the config samples from."""
    manager = manager_of(do_sample=True, temperature=0.5, top_k=0)
    install(manager, tiny_tokenizer(), f"suppress_tokens({[i for i in range(272) if i != 65]})")
    (result,) = results(manager, [(PROMPTS[0], None)])
    assert result.generated_tokens == [65] * NEW
