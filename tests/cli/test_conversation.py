"""``logitkit run --chat``: lines are messages, turns are remembered, Ctrl-C stops an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

import logitkit
from command_line import logitkit_command
from logitkit import models
from logitkit.cli import conversation
from terminal import Session, on_terminal


def settings(checkpoint: str, tokens: int = 12) -> list[str]:
    """Return the options of a conversation with the speaking model."""
    return ["run", "--chat", "--model", checkpoint, "--max-new-tokens", str(tokens)]


def answers(checkpoint: str, chain: str, *turns: str, tokens: int = 12) -> list[str]:
    """Return the answers that `logitkit.generate` gives to these messages, each with all turns before it."""
    model, tokenizer = models.load(checkpoint)
    messages: list[dict[str, str]] = []
    texts = []
    for turn in turns:
        messages.append({"role": "user", "content": turn})
        text = logitkit.generate(
            model, tokenizer, [list(messages)], chain=chain, max_new_tokens=tokens, do_sample=False
        ).texts[0]
        messages.append({"role": "assistant", "content": text})
        texts.append(text)
    return texts


@pytest.mark.parametrize("chain", ["", "cfg(1.5)", "repetition_penalty(1.3)"])
def test_a_pipe_is_a_conversation(speaking_checkpoint: str, chain: str) -> None:
    """Each line is answered with all earlier turns in the prompt; only the answers go to standard output."""
    lines = ["Who wrote the letter?", "And then?"]
    typed = "\n\n".join(lines) + "\n"
    result = logitkit_command(*settings(speaking_checkpoint), "--chain", chain, input=typed)
    want = answers(speaking_checkpoint, chain, *lines)
    assert result.exit_code == 0 and result.stdout == "".join(f"{text}\n" for text in want), result.output
    data = json.loads(logitkit_command(*settings(speaking_checkpoint), "--chain", chain, "--json", input=typed).stdout)
    assert [(turn["message"], turn["text"]) for turn in data] == list(zip(lines, want, strict=True))


def test_reset_forgets_and_quit_ends(speaking_checkpoint: str) -> None:
    """After /reset an answer is that of a first message; nothing behind /quit is read."""
    result = logitkit_command(*settings(speaking_checkpoint), input="One\nTwo\n/reset\nTwo\n/quit\nThree")
    first, second = answers(speaking_checkpoint, "", "One", "Two")
    (fresh,) = answers(speaking_checkpoint, "", "Two")
    assert result.stdout.splitlines() == [first, second, fresh] and second != fresh


def test_a_sampled_conversation_repeats_with_its_seed(speaking_checkpoint: str) -> None:
    """The seed fixes every answer, and two answers to one message differ."""
    sampled = [*settings(speaking_checkpoint), "--temperature", "2.0"]
    typed = "One\n/reset\nOne\n"
    first, again, other = (
        logitkit_command(*sampled, "--seed", seed, input=typed).stdout.splitlines() for seed in (1, 1, 5)
    )
    assert first == again != other and first[0] != first[1]


def test_a_message_argument_gets_one_answer(speaking_checkpoint: str) -> None:
    """With a prompt, --chat sends one message and reads no input."""
    result = logitkit_command(*settings(speaking_checkpoint), "One", input="Two\n")
    assert result.stdout.splitlines() == answers(speaking_checkpoint, "", "One")


@pytest.mark.parametrize("prompt", [["Hello"], []])
def test_a_model_without_a_template_is_refused_by_name(tiny_checkpoint: str, prompt: list[str]) -> None:
    """Before a line is read; the error says what to choose."""
    result = logitkit_command(*settings(tiny_checkpoint), *prompt, input="Hello\n")
    assert result.exit_code == 2 and result.stdout == ""
    assert f"must be used with a model that has a chat template, got {tiny_checkpoint}" in result.stderr


def test_too_long_a_conversation_is_refused(speaking_checkpoint: str) -> None:
    """The error says how to begin a new one; a pipe ends with status 2."""
    result = logitkit_command(*settings(speaking_checkpoint), input="word " * 700 + "\n")
    assert result.exit_code == 2 and "at most 1024 tokens long with its answer" in result.stderr


def test_bytes_that_are_no_text_are_refused(speaking_checkpoint: str) -> None:
    """A line that is not UTF-8 ends a pipe with one error."""
    result = logitkit_command(*settings(speaking_checkpoint), input=b"caf\xe9\n")
    assert result.exit_code == 2 and "standard input must be UTF-8 text" in result.stderr


def test_an_error_on_a_terminal_keeps_the_conversation(
    monkeypatch: pytest.MonkeyPatch, speaking_checkpoint: str
) -> None:
    """A message that is too long, and a command that does not exist, are told and dropped."""
    typed = "One\n" + "word " * 700 + "\n/rest\nTwo\n"
    status, screen = on_terminal(monkeypatch, 60, *settings(speaking_checkpoint), typed=typed)
    text = " ".join(" ".join(screen.lines).split())
    first, second = answers(speaking_checkpoint, "", "One", "Two")
    assert status == 0 and " ".join(first.split()) in text and " ".join(second.split()) in text
    assert "at most 1024 tokens" in text and "did you mean '/reset'?" in text


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("/hep", "error: no command of a chat named '/hep'; did you mean '/help'?"),
        ("/hep me out", "error: no command of a chat named '/hep'; did you mean '/help'?"),
        ("/Rset", "error: no command of a chat named '/Rset'; did you mean '/reset'?"),
        ("/goodbye", f"error: no command of a chat named '/goodbye'; {conversation.HELP}"),
        ("/?", f"error: no command of a chat named '/?'; {conversation.HELP}"),
        ("/quit now", "error: run: /quit must be alone on its line, got '/quit now'; leave out what follows it"),
    ],
)
def test_an_unknown_command_is_not_sent_to_the_model(
    monkeypatch: pytest.MonkeyPatch, speaking_checkpoint: str, typed: str, says: str
) -> None:
    """A pipe ends with the error and status 2; a terminal shows it and goes on."""
    result = logitkit_command(*settings(speaking_checkpoint), input=f"{typed}\nOne\n")
    assert (result.exit_code, result.stdout) == (2, "") and result.stderr.strip().endswith(says)
    status, screen = on_terminal(monkeypatch, 60, *settings(speaking_checkpoint), typed=f"{typed}\nOne\n")
    # What was typed ahead stands above; the first line thus begins behind the prompt, and may break inside a word.
    text, (answer,) = "".join("".join(screen.lines).split()), answers(speaking_checkpoint, "", "One")
    assert status == 0 and "".join(says.split()) in text and "".join(answer.split()) in text


@pytest.mark.parametrize("line", ["/HELP", "/Help"])
def test_commands_in_capitals(speaking_checkpoint: str, line: str) -> None:
    """Commands are read in any case, and their remarks are no part of the standard output of a pipe."""
    result = logitkit_command(*settings(speaking_checkpoint), input=f"{line}\nOne\n/RESET\n/Quit\nTwo\n")
    assert result.stdout.splitlines() == answers(speaking_checkpoint, "", "One")
    assert conversation.HELP in result.stderr and "(a new conversation)" in result.stderr


@pytest.mark.parametrize("line", ["/usr/bin is a folder", "/5 of it", "// comment", "//hep", "and /help"])
def test_messages_that_begin_with_a_slash(speaking_checkpoint: str, line: str) -> None:
    """Paths and numbers are messages; of two slashes the first one is dropped."""
    result = logitkit_command(*settings(speaking_checkpoint), input=f"{line}\n")
    assert result.stdout.splitlines() == answers(speaking_checkpoint, "", line.replace("//", "/", 1))


def test_ctrl_c_stops_an_answer_and_keeps_the_conversation(speaking_checkpoint: str) -> None:
    """A person types, stops a long answer, asks again, and leaves with Ctrl-D; the words said so far are a turn."""
    session = Session(60, *settings(speaking_checkpoint, tokens=800), "--chain", "cfg(1.5)")
    session.wait_for("> $")
    assert "Ctrl-C" in " ".join(session.screen.lines).split(), "a line is broken inside a word"
    session.type("\x03")
    session.wait_for("Ctrl-D(?s:.*)> $")
    session.type("Who wrote the letter?\n")
    session.wait_for(r"letter\?(?s:.*\w+ \w+ \w+ )")
    session.type("\x03")
    assert "tokens/s" not in session.wait_for(r"\(stopped\)(?s:.*)> $")
    session.type("/reset\n")
    session.wait_for(r"\(a new conversation\)(?s:.*)> $")
    session.type("/quit\n")
    assert session.end() == 0
    assert max(map(len, session.screen.lines)) <= 60 and "Traceback" not in "\n".join(session.screen.lines)


def test_the_words_of_a_stopped_answer_are_a_turn(speaking_checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next answer sees them; a message without a word of an answer is dropped."""
    model, tokenizer = models.load(speaking_checkpoint)
    talk: Any = conversation.Conversation(
        model=model,
        tokenizer=tokenizer,
        chain=logitkit.chain(""),
        settings={"max_new_tokens": 12, "do_sample": False},
        seed=0,
        stream=True,
        record=False,
    )
    from logitkit.inspection import completion

    def stop(text: str) -> None:
        if text.strip():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(completion, "_write", stop)
        assert talk.answer("One") is None
    assert [turn["role"] for turn in talk.messages] == ["user", "assistant"] and talk.messages[1]["content"].strip()
    with monkeypatch.context() as patch:
        patch.setattr(completion, "_writer", lambda heard: stop)
        assert talk.answer("Two") is None
    assert len(talk.messages) == 2
    assert talk.answer("Three") is not None and len(talk.messages) == 4
