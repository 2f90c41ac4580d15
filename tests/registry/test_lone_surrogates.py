"""Texts with lone surrogates: one error wherever a text enters, and none inside a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import logitkit
from logitkit.errors import FileFormatError, LogitkitError, ParameterError, PromptError
from logitkit.processors.ngram import NgramTable
from logitkit.processors.ngram.corpus import TextFiles
from logitkit.processors.ngram.training import train
from logitkit.registry.laws import tiny_model, tiny_tokenizer

LONE = "a\ud800b"


def _run(chain: object = "", prompt: object = "ab", **settings: object) -> object:
    """Generate a token."""
    return logitkit.generate(tiny_model(), tiny_tokenizer(), prompt, chain=chain, max_new_tokens=1, **settings)  # type: ignore[arg-type]


def _step(name: str, **params: object) -> list[dict[str, object]]:
    """Return a chain of one step."""
    return [{"name": name, "params": params}]


@pytest.mark.parametrize(
    "read",
    [
        lambda: _run(prompt=LONE),
        lambda: _run(prompt=["ok", LONE]),
        lambda: _run(f"cfg(2.0, negative='{LONE}')"),
        lambda: _run("cfg(2.0, negative='\\ud800')"),
        lambda: _run(_step("cfg", scale=2.0, negative=LONE)),
        lambda: _run(_step("cad", alpha=0.5, context=[LONE])),
        lambda: _run(_step("uscd", rho=0.5, lame=LONE)),
        lambda: _run(_step("ngram_style", table=LONE, weight=1.0)),
        lambda: _run(_step("ensemble", models=["a", LONE])),
        lambda: _run(_step("cascade", large=LONE)),
        lambda: _run([{"name": LONE}]),
        lambda: _run(_step("cfg", **{LONE: 1})),
        lambda: _run(stop_strings=[LONE]),
        lambda: _run("byte_boundary()", stop_strings=LONE),
        lambda: logitkit.score(tiny_model(), tiny_tokenizer(), "ab", LONE),
        lambda: logitkit.score(tiny_model(), tiny_tokenizer(), LONE, "ab"),
        lambda: logitkit.describe(LONE),
        lambda: train([LONE], tiny_tokenizer()),
        lambda: train([{"text": LONE}], tiny_tokenizer()),
        lambda: NgramTable.load(LONE),
    ],
)
def test_a_lone_surrogate_is_one_error(read: Callable[[], object]) -> None:
    """Prompts, parameters, continuations, stop strings and documents with lone surrogates are refused."""
    with pytest.raises(LogitkitError) as caught:
        read()
    assert not isinstance(caught.value, logitkit.errors.PluginError) and len(str(caught.value)) < 300


def test_a_lone_surrogate_of_a_corpus_is_named_with_its_place(tmp_path: Path) -> None:
    """JSON and a few encodings can spell lone surrogates; codecs that decode to no text are refused."""
    (tmp_path / "c.jsonl").write_text(json.dumps({"text": "fine"}) + "\n" + json.dumps({"text": LONE}) + "\n")
    with pytest.raises(ParameterError, match=r"line 2 of .* must be valid Unicode"):
        train(TextFiles([tmp_path / "c.jsonl"]), tiny_tokenizer())
    (tmp_path / "d.txt").write_bytes(b"+2AA-")
    with pytest.raises(FileFormatError, match="lone surrogate"):
        train(TextFiles([tmp_path / "d.txt"], encoding="utf-7"), tiny_tokenizer())
    with pytest.raises(FileFormatError, match="must be UTF-16"):
        train(TextFiles([tmp_path / "d.txt"], encoding="utf-16"), tiny_tokenizer())
    for encoding in ("base64", "rot13", "a\0b", "no such", ""):
        with pytest.raises(ParameterError, match="a text encoding known to Python"):
            TextFiles([tmp_path / "d.txt"], encoding=encoding)


@pytest.mark.parametrize("continuations", [None, 3, [3], [b"x"], [None], [""], []])
def test_continuations_are_texts(continuations: object) -> None:
    """Anything but texts is refused with its value."""
    with pytest.raises(ParameterError, match="continuations must be one or more texts"):
        logitkit.score(tiny_model(), tiny_tokenizer(), "ab", continuations)  # type: ignore[arg-type]


@pytest.mark.parametrize("stops", ["", [], [""], [3], 3, b"x", {"a": 1}])
def test_stop_strings_are_texts(stops: object) -> None:
    """Stop strings that are no texts are refused, whether the prompts were cut or not."""
    for chain in ("", "byte_boundary()"):
        with pytest.raises(ParameterError, match="stop_strings must be one or more texts"):
            _run(chain, stop_strings=stops)


def test_stop_strings_need_no_tokenizer_of_their_own() -> None:
    """A call knows its tokenizer: stop strings end the text as in generate with tokenizer=."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    inputs = tokenizer("ab", return_tensors="pt", return_token_type_ids=False)
    settings = {"max_new_tokens": 12, "do_sample": False}
    free = tokenizer.decode(model.generate(**inputs, **settings)[0, 2:])
    stop = next(letter for letter in free[3:] if letter.isascii())
    want = model.generate(**inputs, **settings, stop_strings=[stop], tokenizer=tokenizer)
    done = logitkit.generate(model, tokenizer, "ab", **settings, stop_strings=[stop])
    assert torch.equal(done.ids, want)
    call = logitkit.chain("").bind(model, tokenizer, "ab")
    assert torch.equal(
        model.generate(
            **call.inputs, logits_processor=call.processors, **call.settings_for(stop_strings=stop, **settings)
        ),
        want,
    )


@pytest.mark.parametrize(
    ("template", "chat"),
    [
        ("{{ messages[0].content }}", [{"role": "user", "content": LONE}]),
        ("{{ messages[0].content + 'x' }}", [{"role": "user", "content": 3}]),
        ("{{ messages[0].content + 'x' }}", [{"role": "user"}]),
        ("{{ raise_exception('roles must alternate') }}", [{"role": "x", "content": "y"}]),
        ("{% for x in %}", [{"role": "x", "content": "y"}]),
    ],
)
def test_chats_that_a_template_refuses_are_one_error(template: str, chat: list[dict[str, object]]) -> None:
    """A template is a program of the model's authors; what it raises is one error of logitkit."""
    plain = Tokenizer(models.WordLevel({"x": 0, "y": 1}, unk_token="y"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, chat_template=template)
    with pytest.raises(PromptError):
        logitkit.chain("").bind(tiny_model(), tokenizer, chat)
