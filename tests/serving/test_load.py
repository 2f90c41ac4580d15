"""Many requests at once: each answer is the one alone, nothing is lost, and nothing grows."""

from __future__ import annotations

import gc
import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil

import logitkit
from logitkit.registry.laws import tiny_model
from logitkit.serving.row import Prompt, Row
from servers import chatting_tokenizer, client_of, running, tiny_engine

CHAINS = ["", "cfg(1.5)", "no_repeat_ngram(2) | min_p(0.02)", "temperature(0.7) | top_k(20)"]
REQUESTS, KINDS = 200, 40  # the answers of equal requests are compared with one text


def settings_of(number: int) -> dict[str, Any]:
    """Return a request: its chain, prompt, length, seed and sampling depend on its number."""
    number %= KINDS
    sampled = {"seed": number, "top_p": 0.9 if number % 3 else 1.0}
    return {
        "model": "tiny",
        "prompt": "abcdefghijk"[number % 7 : number % 7 + 1 + number % 5] * (1 + number % 3),
        "max_tokens": 3 + number % 5,
        "extra_body": {"chain": CHAINS[number % 4]},
        **({"temperature": 0} if number % 5 == 0 else sampled),
    }


def test_two_hundred_requests_with_four_chains() -> None:
    """Greedy and sampled, whole and as streams, in batches of up to 16: each is the answer of a server alone."""
    engine = tiny_engine()
    with running(engine) as address, client_of(address) as client:

        def text(number: int) -> str:
            settings = settings_of(number)
            if number % 4 == 1:
                parts = client.completions.create(**settings, stream=True)
                return "".join(choice.text for part in parts for choice in part.choices)
            return str(client.completions.create(**settings).choices[0].text)

        with ThreadPoolExecutor(50) as pool:
            together = list(pool.map(text, range(REQUESTS)))
        counted = engine.metrics.text(engine)
    assert f'logitkit_requests_total{{endpoint="/v1/completions",status="200"}} {REQUESTS}\n' in counted
    batches = int(counted.split("\nlogitkit_batches_total ")[1].split()[0])
    assert batches < REQUESTS / 2 and engine.waiting == engine.running == 0
    alone = [generated_alone(tiny_engine(), number) for number in range(KINDS)]
    assert together == alone * (REQUESTS // KINDS) and len(set(alone)) > KINDS / 2
    for number in range(0, KINDS, 5):  # greedy, and so the text of `generate`
        settings = settings_of(number)
        expected = logitkit.generate(
            tiny_model(),
            chatting_tokenizer(),
            settings["prompt"],
            chain=settings["extra_body"]["chain"],
            do_sample=False,
            max_new_tokens=settings["max_tokens"],
        )
        assert together[number] == expected.texts[0]


def generated_alone(engine: Any, number: int) -> str:
    """Return the text of a request in a batch of its own, without a server."""
    settings = settings_of(number)
    row = Row(
        prompt=Prompt(value=settings["prompt"], kind="text"),
        chain=logitkit.chain(settings["extra_body"]["chain"]),
        seed=settings.get("seed", 0),
        temperature=settings.get("temperature", 1.0),
        top_p=settings.get("top_p", 1.0),
        new_tokens=settings["max_tokens"],
    )
    engine._runner.run([row])
    assert row.error is None
    return "".join(piece.text for piece in row.read()[0])


def test_memory_stays_flat() -> None:
    """After 60 requests no row, call or tensor of 300 more stays, and memory stops growing.

    The memory of a process grows once for each thread too, so that of three hundreds the one that grows least counts.
    """
    engine = tiny_engine()
    with running(engine) as address, client_of(address) as client, ThreadPoolExecutor(16) as pool:

        def send(number: int) -> None:
            client.completions.create(**{**settings_of(number), "max_tokens": 2})

        list(pool.map(send, range(60)))
        memory, counted = [psutil.Process().memory_info().rss], counts()
        for hundred in range(3):
            list(pool.map(send, range(100 * hundred, 100 * (hundred + 1))))
            memory.append(psutil.Process().memory_info().rss)
        after, until = counts(), time.monotonic() + 20
        while not settled(counted, after) and time.monotonic() < until:  # answers arrive before their batch is put away
            time.sleep(0.1)
            after = counts()
    assert settled(counted, after), (counted, after)
    assert min(later - earlier for earlier, later in itertools.pairwise(memory)) < 10e6, memory


def settled(before: dict[str, int], after: dict[str, int]) -> bool:
    """Return whether no kind of object has grown."""
    return all(count <= before[name] + 5 for name, count in after.items())


def counts() -> dict[str, int]:
    """Return the numbers of objects that a request makes."""
    gc.collect()
    names = ("Row", "Call", "Composite", "Tensor", "Exchange")
    kinds = [type(thing).__name__ for thing in gc.get_objects()]
    return {name: kinds.count(name) for name in names}
