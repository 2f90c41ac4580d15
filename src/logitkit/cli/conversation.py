"""The conversation of ``logitkit run --chat``: lines are messages, answers stream, turns are remembered."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from logitkit.cli.rendering import print_remark
from logitkit.errors import LogitkitError, ModelError, ParameterError, PromptError, UnknownNameError
from logitkit.params import is_valid_unicode

if TYPE_CHECKING:
    from logitkit.inspection.completion import Completion
    from logitkit.inspection.settings import GenerateSettings
    from logitkit.registry.call import Call
    from logitkit.registry.chain import Chain

HELP = (
    "/reset forgets the conversation, /quit or Ctrl-D ends it, Ctrl-C stops an answer; a message that begins with a "
    "slash is written with two."
)
COMMANDS = ("/reset", "/quit", "/help")


def check_template(model: str, tokenizer: Any) -> None:
    """Check that a tokenizer has a chat template.

    Raises:
        ModelError: the tokenizer has none; the error names the model.
    """
    if not getattr(tokenizer, "chat_template", None):
        way_out = "leave --chat out, or choose a chat model such as smollm2-135m"
        raise ModelError(f"run: --chat must be used with a model that has a chat template, got {model}; {way_out}")


@dataclass(kw_only=True)
class Conversation:
    """A conversation with a chat model.

    Attributes:
        model, tokenizer: of a chat model.
        chain: bound anew for each answer, to all turns so far.
        settings: of ``model.generate``.
        seed: of the first answer; each further answer adds one.
        stream: whether answers are written while they are generated.
        record: whether the steps of each answer are recorded.
        messages: the turns so far.
        answers: number of answers since the start.
    """

    model: Any
    tokenizer: Any
    chain: Chain
    settings: GenerateSettings
    seed: int
    stream: bool
    record: bool
    messages: list[dict[str, str]] = field(default_factory=list)
    answers: int = 0

    def answer(self, text: str) -> Completion | None:
        """Add a message and its answer to the turns.

        Returns:
            The answer; None when Ctrl-C stopped it. What was written until then stays in the conversation.

        Raises:
            LogitkitError: the chain cannot be bound to these turns, or the model cannot read so many tokens. The
                message is dropped.
        """
        from logitkit.inspection.completion import complete

        turns = [*self.messages, {"role": "user", "content": text}]
        pieces: list[str] = []
        seed, self.answers = self.seed + self.answers, self.answers + 1
        try:
            completion = complete(
                self.model,
                self.tokenizer,
                turns,
                self.chain,
                stream=self.stream,
                record=self.record,
                seed=seed,
                before_generate=self._check_length,
                heard=pieces.append,
                **self.settings,
            )
        except KeyboardInterrupt:
            if pieces:  # without a word of the answer, the message is dropped too: the roles of turns alternate
                self.messages = [*turns, {"role": "assistant", "content": "".join(pieces)}]
            return None
        self.messages = [*turns, {"role": "assistant", "content": completion.text}]
        return completion

    def reset(self) -> None:
        """Forget all turns."""
        self.messages = []

    def _check_length(self, call: Call) -> None:
        """Refuse turns that, with the longest answer, do not fit the context of the model."""
        from logitkit.processors.model_facts import context_length

        length, room = call.inputs["input_ids"].shape[-1], context_length(self.model)
        needed = length + self.settings["max_new_tokens"]
        if room is not None and needed > room:
            rule = f"at most {room} tokens long with its answer"
            raise PromptError(f"run: the conversation must be {rule}, got {needed}; type /reset to begin a new one")


def converse(conversation: Conversation, *, after: Callable[[Completion], None]) -> None:
    """Answer each line of standard input until it ends or says /quit.

    On a terminal a wrong line, an error and Ctrl-C leave the conversation as it was; elsewhere an error ends it. A
    line whose first word is a slash and letters is a command, and two slashes begin a message with one.

    Args:
        conversation: the turns so far.
        after: called with each answer that was not stopped.
    """
    interactive = sys.stdin.isatty()
    if interactive:
        print_remark(HELP)
    for line in _lines(interactive):
        try:
            command = command_of(line)
            if command == "/quit":
                return
            if command:
                _carry_out(conversation, command)
                continue
            line = line.removeprefix("/") if line.startswith("//") else line
            if not is_valid_unicode(line):
                raise ParameterError("run", "a message", "valid Unicode", line[:60], "remove the lone surrogates")
            completion = conversation.answer(line)
        except LogitkitError as error:
            if not interactive:
                raise
            print_remark(f"error: {error}")
            continue
        if completion is None:
            print_remark("\n(stopped)")
        else:
            after(completion)


def command_of(line: str) -> str:
    """Return the command that a line gives, in small letters, or "" for a message.

    Raises:
        UnknownNameError: a line that begins like a command and is none; the error shows the closest command.
        ParameterError: words behind a command.

    >>> command_of("/Reset"), command_of("/usr/bin is a folder"), command_of("//reset is a message")
    ('/reset', '', '')
    """
    word, _, more = line.partition(" ")
    if not re.fullmatch(r"/([^\W\d][\w-]*|\??)", word):
        return ""
    if word.lower() not in COMMANDS:
        raise UnknownNameError("command of a chat", word, COMMANDS, HELP)
    if more.strip():
        raise ParameterError("run", word.lower(), "alone on its line", line[:60], "leave out what follows it")
    return word.lower()


def _carry_out(conversation: Conversation, command: str) -> None:
    """Carry out a command of the conversation."""
    if command == "/reset":
        conversation.reset()
        print_remark("(a new conversation)")
    else:
        print_remark(HELP)


def _lines(interactive: bool) -> Iterator[str]:
    """Yield the lines of standard input that are not empty, without the white space around them.

    Raises:
        ParameterError: the input is not UTF-8.
    """
    if interactive and sys.stdout.isatty():  # elsewhere it may write control characters among the answers
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - the arrow keys edit lines
    while True:
        try:
            line = _prompted() if interactive else sys.stdin.readline()
        except KeyboardInterrupt:
            if not interactive:
                raise
            print_remark("\n" + HELP)
            continue
        except UnicodeDecodeError as error:
            why = f"{error.reason} at byte {error.start}"
            raise ParameterError("run", "standard input", f"UTF-8 text ({why})", "other bytes") from error
        if not line:
            if interactive:
                print_remark("")
            return
        if line.strip():
            yield line.strip()


def _prompted() -> str:
    """Ask for a line; the prompt stays out of a standard output that is no terminal."""
    if sys.stdout.isatty():
        try:
            return input("> ") + "\n"
        except EOFError:
            return ""
    sys.stderr.write("> ")
    sys.stderr.flush()
    return sys.stdin.readline()
