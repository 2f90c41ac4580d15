"""``logitkit serve``: the program itself, what it prints, how it ends, and what it refuses before it loads a model."""

from __future__ import annotations

import json
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

import logitkit.models
from command_line import logitkit_command
from fresh import ROOT
from logitkit.registry.laws import tiny_model
from servers import chatting_tokenizer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the tiny model and a tokenizer with a chat template."""
    folder = str(tmp_path_factory.mktemp("served"))
    tiny_model().save_pretrained(folder)
    chatting_tokenizer().save_pretrained(folder)
    return folder


def test_the_program(checkpoint: str) -> None:
    """It says where it is, its own request runs, it logs each request, and Ctrl-C ends it: at once the second time."""
    arguments = ["serve", "--model", checkpoint, "--name", "tiny", "--port", "0", "--chain", "top_p(0.9)"]
    command = [sys.executable, "-m", "logitkit", *arguments]
    program = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert program.stderr is not None
    try:
        first, curl = program.stderr.readline(), program.stderr.readline()
        found = re.fullmatch(r"logitkit serve: tiny at (http://127\.0\.0\.1:\d+/v1)\n", first)
        assert found is not None, first + program.stderr.read()
        _, url, _, header, _, body = shlex.split(curl)
        reply = httpx.post(url, content=body, headers=dict([header.split(": ")]), timeout=60)
        assert reply.status_code == 200 and json.loads(body)["chain"] == "cfg(1.5)"
        assert "POST /v1/completions 200, 10 tokens read, 16 written, " in program.stderr.readline()
        endless = {"prompt": "ab", "max_tokens": 500, "stream": True, "chain": "suppress_tokens([257])"}
        with httpx.stream("POST", f"{found[1]}/completions", json=endless, timeout=60) as answer:
            lines = answer.iter_lines()  # kept, since httpx closes the connection with it
            next(lines)
            program.send_signal(signal.SIGINT)
            assert program.stderr.readline() == "stopping; texts left: 1; Ctrl-C stops at once\n"
            program.send_signal(signal.SIGINT)
            assert program.wait(60) == 130
    finally:
        program.kill()
        program.communicate()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--chain", "cgf(1.5)"], "did you mean 'cfg'?"),
        (["--other-model", "large"], "--other-model must be NAME=MODEL"),
        (["--other-model", "a=b", "--other-model", "a=c"], "each name once"),
        (["--table", "=x"], "--table must be NAME=FILE"),
        (["--table", "style=/absent"], "--table must be NAME=FILE with a path that exists, got 'style=/absent'"),
        (["--file", "sure=/absent"], "--file must be NAME=PATH with a path that exists, got 'sure=/absent'"),
        (["--host", "203.0.113.1", "--port", "0"], "an address of this machine and a free port"),
    ],
)
def test_what_is_refused(arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a model is loaded."""
    monkeypatch.setattr(logitkit.models, "load", lambda *_, **__: pytest.fail("a model is loaded"))
    result = logitkit_command("serve", *arguments)
    assert result.exit_code == 2 and says in " ".join(result.stderr.split()), result.stderr


def test_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same; the message names the port."""
    monkeypatch.setattr(logitkit.models, "load", lambda *_, **__: pytest.fail("a model is loaded"))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = logitkit_command("serve", "--port", port)
    assert result.exit_code == 2 and f"127.0.0.1:{port}" in result.stderr


def test_names_reach_the_server(checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models and files by the names of the command line, and the limits."""
    engines: list[Any] = []
    monkeypatch.setattr("logitkit.cli.serve._run", lambda engine, listener: (engines.append(engine), listener.close()))
    (tmp_path / "threshold.json").write_text("{}")
    named = ["--other-model", f"large={checkpoint}", "--file", f"sure={tmp_path / 'threshold.json'}"]
    chain = ["--chain", "contrastive(amateur='large')", "--max-batch", "3", "--timeout", "9", "--no-own-chains"]
    result = logitkit_command("serve", "--model", checkpoint, "--port", "0", *named, *chain)
    assert result.exit_code == 0, result.output
    (engine,) = engines
    assert list(engine.resources.objects) == ["large"] and list(engine.resources.files) == ["sure"]
    assert (engine.limits.max_batch, engine.limits.timeout, engine.own_chains) == (3, 9.0, False)


def test_an_interrupt_ends_it(checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With status 130, when uvicorn has answered what there was; nothing is said of files."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", interrupted)
    result = logitkit_command("serve", "--model", checkpoint, "--port", "0")
    assert result.exit_code == 130 and result.stderr.endswith("stopped\n") and "file" not in result.stderr
