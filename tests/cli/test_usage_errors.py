"""Errors of the command line itself: one line each, with the command, the rule, the value and a way out."""

from __future__ import annotations

import pytest

from command_line import logitkit_command

COMPARE = ["compare", "a", "b", "text"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            [*COMPARE, "--divergence", "-1"],
            "compare: --divergence must be a number >= 0, got '-1'; see logitkit compare",
        ),
        ([*COMPARE, "--tokens", "0"], "compare: --tokens must be a number >= 1 and <= 1000000, got '0'; see"),
        ([*COMPARE, "--tokens", "1.5"], "compare: --tokens must be an integer >= 1 and <= 1000000, got '1.5'; see"),
        ([*COMPARE, "--measure", "x"], "compare: --measure must be one of 'js', 'kl', 'reverse_kl', got 'x'; see"),
        (
            ["bench", "speed", "--batch", "2", "--batch", "x"],
            "bench speed: --batch must be an integer >= 1 and <= 10000",
        ),
        (["bench", "speed", "--batch", "0"], "bench speed: --batch must be a number >= 1 and <= 10000, got '0'; see"),
        (["compare", "a"], "compare: OTHER must be given, got nothing; see logitkit compare --help"),
        (["train-ngram", "a.txt"], "train-ngram: --tokenizer must be given, got nothing; see logitkit train-ngram"),
        (["run", "--max-new-tokns", "3"], "run: no option named '--max-new-tokns'; "),
        (["show", "a", "b"], "show: got unexpected extra argument"),
        (["run", "a", "--seed"], "run: option '--seed' requires an argument; see logitkit run --help"),
        (["--nothing"], "logitkit: no option named '--nothing'; see logitkit --help"),
        (["compair"], "no command named 'compair'; did you mean 'compare'?"),
        (["models", "pul"], "no command named 'pul'; did you mean 'pull'?"),
    ],
)
def test_one_line(arguments: list[str], line: str) -> None:
    """Exit status 2, and one line on standard error that begins like this."""
    result = logitkit_command(*arguments)
    assert result.exit_code == 2 and not result.stdout
    assert result.stderr.startswith(f"error: {line}") and result.stderr.count("\n") == 1, result.stderr


@pytest.mark.parametrize("arguments", [[], ["models"], ["bench", "--help"]])
def test_help_stays_help(arguments: list[str]) -> None:
    """A group without a command shows its help text."""
    assert "Usage:" in logitkit_command(*arguments).output
