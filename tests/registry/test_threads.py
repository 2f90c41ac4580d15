"""Calls in several threads on one model, and one call in several threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

import logitkit
from logitkit.errors import ModeError
from logitkit.registry.laws import tiny_model, tiny_tokenizer

PROMPT = "the old man went to the sea"
ROUNDS = 12


def run_together(work: Callable[[], Any], count: int) -> list[Any]:
    """The results of ``count`` threads that do the same work at the same time; an exception is a result."""
    results: list[Any] = []
    barrier = threading.Barrier(count)

    def run() -> None:
        barrier.wait()
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def generated(chain: str, streams: Any = "auto") -> list[int]:
    """The ids that a fresh call generates."""
    resources = {"other": tiny_model(1)} if "other" in chain else {}
    call = logitkit.chain(chain).bind(tiny_model(), tiny_tokenizer(), PROMPT, **resources)
    ids: list[int] = call.generate(max_new_tokens=8, do_sample=False, streams=streams)[0].tolist()
    return ids


@pytest.mark.parametrize(
    "chain",
    [
        "cfg(2.0, negative='a fish')",
        "uscd(gate=1.0, lame='x')",
        "cascade(large='other')",
        "crossover(other='other', threshold=0.1)",
    ],
)
def test_calls_in_threads_equal_calls_alone(chain: str) -> None:
    """Four threads with a call each, on one model, beside two threads that run plain forwards of the model."""
    expected = generated(chain)
    ids = torch.tensor([tiny_tokenizer()(PROMPT)["input_ids"]])
    logits = tiny_model()(input_ids=ids).logits
    turns = iter(range(6))
    lock = threading.Lock()

    def work() -> bool:
        with lock:
            turn = next(turns)
        if turn < 4:
            return all(generated(chain) == expected for _ in range(ROUNDS))
        return all(torch.allclose(tiny_model()(input_ids=ids).logits, logits) for _ in range(8 * ROUNDS))

    assert run_together(work, 6) == [True] * 6


def test_a_fused_call_leaves_no_hook_on_the_model() -> None:
    """The hooks of a fused call are on a view of the model, during the call and after it."""
    model, seen = tiny_model(3), []
    before = len(model._forward_hooks), len(model._forward_pre_hooks)
    call = logitkit.chain("cfg(2.0, negative='a fish')").bind(model, tiny_tokenizer(), PROMPT)

    def stop(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        seen.append((len(model._forward_hooks), len(model._forward_pre_hooks)))
        return scores

    call.generate(max_new_tokens=3, do_sample=False, streams="fused", logits_processor=[stop])
    assert call.trace.fusion.state == "fused" and set(seen) == {before}
    assert before == (len(model._forward_hooks), len(model._forward_pre_hooks))


@pytest.mark.parametrize("streams", ["fused", "lazy"])
def test_a_second_generate_of_a_call_is_refused_while_the_first_one_runs(streams: Any) -> None:
    """The first generate ends with its own text, and the call can generate again."""
    call = logitkit.chain("cfg(2.0, negative='a fish')").bind(tiny_model(), tiny_tokenizer(), PROMPT)
    refusals: list[Exception] = []

    def try_again(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        thread = threading.Thread(target=lambda: refusals.append(raised(call)))
        thread.start()
        thread.join()
        return scores

    ids = call.generate(max_new_tokens=2, do_sample=False, streams=streams, logits_processor=[try_again])
    assert len(refusals) == 2 and all("one generate at a time" in str(error) for error in refusals)
    assert ids[0].tolist() == call.generate(max_new_tokens=2, do_sample=False)[0].tolist()


def raised(call: Any) -> Exception:
    """The ModeError of a second generate."""
    with pytest.raises(ModeError) as caught:
        call.generate(max_new_tokens=1)
    return caught.value


@pytest.mark.parametrize("chain", ["cfg(2.0, negative='a fish')", "cascade(large='other')"])
def test_bare_generates_of_one_call_in_threads_are_right(chain: str) -> None:
    """``model.generate`` with the processors of one call in three threads: each step is served alone."""
    expected = generated(chain)
    resources = {"other": tiny_model(1)} if "other" in chain else {}
    call = logitkit.chain(chain).bind(tiny_model(), tiny_tokenizer(), PROMPT, **resources)

    def work() -> list[Any]:
        return [
            tiny_model()
            .generate(**call.inputs, logits_processor=call.processors, max_new_tokens=8, do_sample=False)[0]
            .tolist()
            for _ in range(ROUNDS)
        ]

    assert run_together(work, 3) == [[expected] * ROUNDS] * 3


def test_each_model_may_be_the_other_model_of_another_call() -> None:
    """A cascade from model 0 to 1, one from 1 to 0, and a fused call, at the same time and by ``asyncio``."""

    def cascade(small: int, large: int) -> list[int]:
        call = logitkit.chain("cascade(large='other')").bind(
            tiny_model(small), tiny_tokenizer(), PROMPT, other=tiny_model(large)
        )
        ids: list[int] = call.generate(max_new_tokens=6, do_sample=False)[0].tolist()
        return ids

    works = [lambda: cascade(0, 1), lambda: cascade(1, 0), lambda: generated("cfg(2.0, negative='a fish')", "fused")]
    expected = [work() for work in works]

    async def together() -> list[list[int]]:
        return await asyncio.gather(*(asyncio.to_thread(work) for work in works * 3))

    assert asyncio.run(together()) == expected * 3


@pytest.mark.parametrize("streams", ["fused", "lazy"])
def test_a_generate_inside_a_processor_leaves_the_outer_one_right(streams: Any) -> None:
    """A processor that generates with another call of the same model changes neither result."""
    chain = "cfg(2.0, negative='a fish')"
    expected, inner = generated(chain), []

    def generates(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        inner.append(generated(chain, streams))
        return scores

    call = logitkit.chain(chain).bind(tiny_model(), tiny_tokenizer(), PROMPT)
    ids = call.generate(max_new_tokens=8, do_sample=False, streams=streams, logits_processor=[generates])
    assert ids[0].tolist() == expected and inner == [expected] * 8


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("streams", ["fused", "lazy"])
def test_a_call_is_right_after_an_interrupted_generate(streams: Any, error: type[BaseException]) -> None:
    """An exception in the third step leaves the call and its model as they were."""
    expected = generated("cfg(2.0, negative='a fish')")
    call = logitkit.chain("cfg(2.0, negative='a fish')").bind(tiny_model(), tiny_tokenizer(), PROMPT)
    width = call.inputs["input_ids"].shape[1]

    def interrupts(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if input_ids.shape[1] == width + 2:
            raise error
        return scores

    with pytest.raises(error):
        call.generate(max_new_tokens=8, do_sample=False, streams=streams, logits_processor=[interrupts])
    assert call.generate(max_new_tokens=8, do_sample=False, streams=streams)[0].tolist() == expected
