"""What happens when a server is full, slow, left or told to stop, and when a text fails among others."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest

from logitkit.errors import ParameterError
from logitkit.registry.chain import Chain
from logitkit.registry.laws import tiny_model
from logitkit.serving import Engine, Limits
from logitkit.serving.engine import StoppedError
from logitkit.serving.routes import TimedStream
from logitkit.serving.row import Prompt, Row
from servers import chatting_tokenizer, client_of, running, tiny_engine

BODY = {"model": "tiny", "prompt": "The sea is", "max_tokens": 4}


@contextmanager
def held(engine: Engine) -> Iterator[None]:
    """Hold the engine at the beginning of a batch until the block ends."""
    gate, run = threading.Event(), engine._runner.run

    def waiting(rows: Any) -> None:
        gate.wait(60)
        run(rows)

    engine._runner.run = waiting  # type: ignore[method-assign]
    try:
        yield
    finally:
        engine._runner.run = run  # type: ignore[method-assign]
        gate.set()


def until(condition: Any) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def row_of(prompt: str = "ab", chain: str = "", **settings: Any) -> Row:
    """Return a row."""
    defaults: dict[str, Any] = {"seed": 0, "temperature": 0.0, "top_p": 1.0, "new_tokens": 4}
    counted = Prompt(value=prompt, kind="text", tokens=len(prompt))
    return Row(prompt=counted, chain=Chain(chain), **{**defaults, **settings})


def test_a_full_queue_refuses() -> None:
    """Status 429 with Retry-After; what waits is answered."""
    engine = tiny_engine(limits=Limits(max_queue=2, max_batch=1))
    with running(engine) as address, client_of(address) as client:
        answers: list[Any] = []
        threads = [threading.Thread(target=lambda: answers.append(client.completions.create(**BODY))) for _ in range(3)]
        with held(engine):
            threads[0].start()
            until(lambda: engine.running == 1)
            for thread in threads[1:]:
                thread.start()
            until(lambda: engine.waiting == 2)
            with pytest.raises(openai.RateLimitError, match="at most 2 texts may wait") as caught:
                client.completions.create(**BODY)
            assert caught.value.response.headers["retry-after"] == "1"
            assert "logitkit_queue_rows 2\n" in httpx.get(f"{address}/metrics").text
            with pytest.raises(openai.BadRequestError, match="at most 2 texts in a request"):
                client.completions.create(**BODY, n=3)
        for thread in threads:
            thread.join()
    assert len(answers) == 3 and 'status="429"} 1\n' in engine.metrics.text(engine)


def test_a_slow_request_ends() -> None:
    """Status 504, in a stream an event; its rows are given up."""
    engine = tiny_engine(limits=Limits(timeout=0.2))
    with running(engine) as address, client_of(address) as client:
        with held(engine):
            with pytest.raises(openai.InternalServerError, match=r"must end within 0\.2 seconds") as caught:
                client.completions.create(**BODY)
            assert caught.value.status_code == 504
            with pytest.raises(openai.APIError, match="must end within"):
                list(client.completions.create(**BODY, stream=True))
        until(lambda: engine.waiting == engine.running == 0)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_row(stream: bool) -> None:
    """In the middle of a text: the row ends at the next token."""
    engine = tiny_engine()
    with running(engine) as address:
        body = {**BODY, "max_tokens": 500, "stream": stream, "chain": "suppress_tokens([257])"}
        url = f"{address}/v1/completions"
        if stream:
            with httpx.stream("POST", url, json=body) as reply:
                next(reply.iter_lines())
        else:
            with pytest.raises(httpx.TimeoutException):
                httpx.post(url, json=body, timeout=0.3)
        until(lambda: 'status="499"} 1\n' in engine.metrics.text(engine) and engine.running == 0)
        row = engine._running[0] if engine._running else None
        assert row is None or row.tokens < 500
        assert httpx.post(url, json=BODY, timeout=60).status_code == 200


def test_a_client_that_leaves_within_its_body() -> None:
    """Counted as one that left, not as a fault."""
    engine = tiny_engine()
    with running(engine) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as begun:
            head = "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            begun.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            time.sleep(0.2)
        until(lambda: 'status="499"} 1\n' in engine.metrics.text(engine))


def test_a_text_that_fails_leaves_the_others() -> None:
    """A batch whose third step fails for one row: the others are written again, and what was sent is not repeated."""
    engine, plain = tiny_engine(), row_of("ab", new_tokens=6)
    engine._runner.run([plain])
    expected = "".join(piece.text for piece in plain.read()[0])
    rows = [row_of("ab", new_tokens=6, streams=True), row_of("cd", new_tokens=6, streams=True)]
    add = rows[1].add

    def failing(*args: Any, **more: Any) -> None:
        if rows[1].tokens == 2:
            raise ValueError("a fault")
        add(*args, **more)

    rows[1].add = failing  # type: ignore[method-assign]
    engine._runner.run(rows)
    assert isinstance(rows[1].error, ValueError) and rows[0].error is None
    assert "".join(piece.text for piece in rows[0].read()[0]) == expected and rows[0].finish_reason == "length"


def test_a_parameter_for_one_prompt_is_not_batched() -> None:
    """A list with one text a prompt fits one prompt; two such rows have the answers that they have alone."""
    engine, chain = tiny_engine(), "cfg(1.5, negative=['a list of words'])"
    alone, *rows = [row_of(chain=chain), row_of(chain=chain), row_of(chain=chain)]
    engine._runner.run([alone])
    engine._runner.run(rows)
    texts = ["".join(piece.text for piece in row.read()[0]) for row in (alone, *rows)]
    assert all(row.error is None for row in rows) and texts[0] == texts[1] == texts[2]


def test_rows_that_have_no_room_side_by_side_are_not_batched() -> None:
    """The context of 512 holds a long prompt and a long text, but not both in one batch."""
    engine = tiny_engine()
    rows = [row_of("a" * 400, new_tokens=4), row_of(new_tokens=300), row_of(new_tokens=4), row_of(chain="top_k(5)")]
    engine._waiting = list(rows)
    assert [row_numbers(rows, engine._next_batch()) for _ in range(3)] == [[0, 2], [1], [3]]
    engine._waiting = [row_of(chain="smc(particles=2)") for _ in range(2)]
    assert len(engine._next_batch()) == 1  # a search runs alone


def row_numbers(rows: list[Row], batch: list[Row]) -> list[int]:
    """Return the places of the rows of a batch."""
    return [next(number for number, row in enumerate(rows) if row is each) for each in batch]


def test_stopping_answers_what_waits() -> None:
    """What is in the queue is generated; what comes later is refused with status 503."""
    engine = tiny_engine(limits=Limits(max_batch=1))
    engine.start()
    rows = [row_of() for _ in range(3)]
    with held(engine):
        engine.submit(rows)
        until(lambda: engine.waiting == 2)
        stopper = threading.Thread(target=engine.stop)
        stopper.start()
        until(lambda: not engine.alive)
        with pytest.raises(StoppedError, match="the server must run"):
            engine.submit([row_of()])
    stopper.join()
    assert [row.finish_reason for row in rows] == ["length"] * 3


def test_a_server_that_ends_answers_first() -> None:
    """A stream that has begun goes on to its end."""
    engine = tiny_engine()
    with contextlib.ExitStack() as stack:
        with running(engine) as address:
            client = stack.enter_context(client_of(address))
            stream = client.completions.create(**{**BODY, "max_tokens": 60}, temperature=0, stream=True)
            next(iter(stream))
        parts = list(stream)
    assert parts[-1].choices[0].finish_reason in ("length", "stop") and not engine.alive


def test_one_chain_for_all() -> None:
    """A server without own chains, with a default chain, and one whose default names what it was not given."""
    engine = tiny_engine(chain="suppress_tokens([65])", own_chains=False)
    with running(engine) as address, client_of(address) as client:
        with pytest.raises(openai.BadRequestError, match="this server has one chain"):
            client.completions.create(**BODY, extra_body={"chain": ""})
        fingerprint = client.completions.create(**BODY).system_fingerprint
    assert fingerprint is not None and fingerprint.endswith(Chain("suppress_tokens([65])").hash)
    with pytest.raises(ParameterError, match="that this server was started with"):
        tiny_engine(chain="contrastive(amateur='large')")


def test_bodies() -> None:
    """Another type of content, no JSON, no object, too long; unknown pages; all in OpenAI's shape."""
    engine = tiny_engine(limits=Limits(max_bytes=100))
    with running(engine) as address:
        url, kind = f"{address}/v1/completions", {"Content-Type": "application/json"}
        for content, headers, status, says in (
            (b"{}", {"Content-Type": "text/plain"}, 400, "Content-Type must be application/json"),
            (b"{", kind, 400, "the body must be JSON"),
            (b"[]", kind, 400, "the body must be a JSON object"),
            (b"[" * 101, kind, 413, "of at most 100 bytes"),
            (b"{}", kind, 400, "prompt must be given"),
            (rb'{"\ud800": 1}', kind, 400, r"named '\ud800'"),
        ):
            reply = httpx.post(url, content=content, headers=headers)
            assert reply.status_code == status and says in reply.json()["error"]["message"], reply.text
        assert httpx.get(f"{address}/v1/nothing").json()["error"]["type"] == "invalid_request_error"
        assert httpx.get(url).status_code == 405
        assert httpx.get(f"{address}/health").json() == {"status": "ok"}
    assert not engine.alive


@pytest.mark.parametrize("at", ["bound", "_generate"])
def test_the_server_outlives_a_panic(at: str) -> None:
    """A fault that is no Exception, as packages in Rust raise them: the request fails, and the next is answered."""
    engine = tiny_engine()
    work = getattr(engine._runner, at)

    def panics(*_: Any) -> None:
        raise SystemExit("a panic")

    with running(engine) as address, client_of(address) as client:
        setattr(engine._runner, at, panics)
        for stream in (False, True):
            with pytest.raises(openai.APIError, match="could not be generated"):
                list(client.completions.create(**BODY, stream=stream))
        setattr(engine._runner, at, work)
        assert client.completions.create(**BODY).choices[0].text and engine.alive


def test_a_client_that_does_not_read() -> None:
    """The stream ends when its time is over, though nothing can be sent."""

    async def parts() -> AsyncIterator[str]:
        yield "a part"

    async def never(*_: Any) -> Any:
        await asyncio.Event().wait()

    async def send() -> None:
        await TimedStream(parts(), until=time.monotonic() + 0.05)({"type": "http"}, never, never)

    asyncio.run(asyncio.wait_for(send(), 30))


def test_a_log_holds_no_prompts(caplog: pytest.LogCaptureFixture) -> None:
    """Errors quote what was wrong; the line in the log names the field and its rule alone."""
    caplog.set_level("INFO", "logitkit.serving")
    tokenizer = copy.deepcopy(chatting_tokenizer())
    tokenizer.chat_template = "{{ raise_exception(messages[0].content) }}"
    with running(Engine(tiny_model(), tokenizer)) as address:
        for path, body in (
            ("chat/completions", '{"messages": [{"role": "user", "content": "secret"}]}'),
            ("completions", '{"prompt": ["secret", 5]}'),
            ("completions", '{"prompt": "secret\\ud800"}'),
            ("completions", '{"prompt": "secret'),
            ("completions", '{"prompt": "ab", "stop": ["secret", ""]}'),
            ("chat/completions", '{"messages": [{"role": 5, "content": "secret"}]}'),
            ("chat/completions", '{"messages": [{"role": "user", "content": [{"secret": 1}]}]}'),
        ):
            kind = {"Content-Type": "application/json"}
            reply = httpx.post(f"{address}/v1/{path}", content=body, headers=kind)
            assert reply.status_code == 400, reply.text
        assert httpx.post(f"{address}/v1/completions", json={"prompt": "ab", "n": 0}).status_code == 400
    lines = [record.getMessage() for record in caplog.records if record.name == "logitkit.serving"]
    assert len(lines) == 8 and not any("secret" in line for line in lines), lines
    assert "n must be a whole number >= 1 and <= 128, got 0" in lines[-1]


@pytest.mark.parametrize(
    "limits", [{"max_batch": 0}, {"max_queue": True}, {"timeout": 0}, {"timeout": float("nan")}, {"max_tokens": 1.5}]
)
def test_wrong_limits_are_refused(limits: dict[str, Any]) -> None:
    """By name."""
    with pytest.raises(ParameterError, match=next(iter(limits))):
        Limits(**limits)
