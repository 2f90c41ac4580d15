"""``logitkit drift``: how far the answers of a conversation are from those with the goal restated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from logitkit.cli import options
from logitkit.cli.inputs import check_output, load_model, read_chain, utf8_text
from logitkit.cli.json_output import print_json
from logitkit.cli.rendering import print_line, print_table
from logitkit.errors import FileFormatError
from logitkit.files import parse_json, replace_file
from logitkit.packages import is_installed
from logitkit.progress import progress_bar
from logitkit.tables import FittedTable

if TYPE_CHECKING:
    from logitkit.diagnostics import DriftFit, TurnDrift

EXAMPLES = (
    'logitkit drift chat.jsonl --goal "Answer in French."',
    'logitkit drift chat.jsonl --goal "Answer in French." --remind 3 --plot drift.svg',
    'logitkit drift chat.jsonl --goal "Stay brief." --chain "" --chain "anchor(\'Stay brief.\')" --plot drift.svg',
)
MEANING = {"a": "a, growth", "b": "b, restoring force", "c": "c, effect of a reminder"}


# Over 40 lines: each option of the command is a parameter.
def drift(
    file: Annotated[Path, typer.Argument(help="A conversation, one message a line as JSON: role and content.")],
    goal: Annotated[str, typer.Option(help="What the answers should keep to, as it is restated.")],
    model: options.Model = "smollm2-135m",
    chain: Annotated[
        list[str] | None, typer.Option(help="A chain that decodes; repeatable, one course for each.")
    ] = None,
    remind: Annotated[
        int | None, typer.Option(min=1, help="Restate the goal in every so many messages of the user.")
    ] = None,
    max_new_tokens: options.NewTokens = 64,
    plot: Annotated[Path | None, typer.Option(help="File for a picture of the courses, *.svg.")] = None,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    as_json: options.AsJson = False,
) -> None:
    """Measure how far a conversation drifts from its goal.

    Answers of the assistant that the file lacks are generated. The drift of an answer is the mean divergence of the
    model in the conversation from the same model with the goal restated.
    """
    check_output("drift", "--plot", plot, ".svg")
    chat = _messages(file)
    chains = {text or "plain": read_chain(text) for text in chain or [""]}
    loaded, tokenizer = load_model("drift", model, device=device, dtype=dtype)
    from logitkit.diagnostics import drift_plot, fit_drift, measure_drift

    courses: dict[str, list[TurnDrift]] = {}
    chats = {}
    turns = sum(message.get("role") == "user" for message in chat)
    with progress_bar("answers", total=turns * len(chains), piped=True) as bar:
        for name, steps in chains.items():
            courses[name], chats[name] = measure_drift(
                loaded,
                tokenizer,
                chat,
                goal,
                chain=steps,
                remind_every=remind,
                max_new_tokens=max_new_tokens,
                advance=bar.advance,
            )
    fits = {name: fit_drift(course) if is_installed("statsmodels") else None for name, course in courses.items()}
    if plot:
        with replace_file(plot) as part:
            part.write_text(drift_plot(courses), encoding="utf-8")
        print_line(f"{plot}: the courses", stderr=True)
    if as_json:
        print_json({name: _plain(courses[name], fits[name], chats[name]) for name in courses})
        return
    _print_courses(courses)
    _print_fits(fits)


def _messages(path: Path) -> list[dict[str, Any]]:
    """Return the messages of a file.

    Raises:
        FileFormatError: a line is no message.
    """
    messages = []
    for number, line in enumerate(utf8_text("drift", "file", path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            data: Any = parse_json(line)
        except ValueError as error:
            raise FileFormatError(
                f"drift: line {number} of {path} must be a JSON object, got {line[:60]} ({error})"
            ) from error
        if not isinstance(data, dict) or not all(isinstance(data.get(key), str) for key in ("role", "content")):
            rule = "must be a message with the texts role and content"
            raise FileFormatError(f"drift: line {number} of {path} {rule}, got {line[:60]}")
        messages.append(data)
    if not messages:
        raise FileFormatError(f"drift: {path} must hold a message, got none")
    return messages


def _plain(course: list[TurnDrift], fit: DriftFit | None, chat: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a course as plain data."""
    return {
        "turns": [turn._asdict() for turn in course],
        "fit": None if fit is None else {name: list(values) for name, values in fit.estimates.items()},
        "chat": chat,
    }


def _print_courses(courses: dict[str, list[TurnDrift]]) -> None:
    """Print the drift of each turn, a column for each chain."""
    names = [f"{name}, nats a token" for name in courses]
    table = FittedTable("turn", "reminder", *names, numbers=("turn", *names))
    for turns in zip(*courses.values(), strict=True):
        reminder = "yes" if turns[0].reminder else ""
        table.add_row(str(turns[0].turn), reminder, *(f"{turn.divergence:.4f}" for turn in turns))
    print_table(table)


def _print_fits(fits: dict[str, DriftFit | None]) -> None:
    """Print the fit of each course, or why there is none."""
    found = {name: fit for name, fit in fits.items() if fit is not None}
    if not found:
        more = (
            "5 turns, 6 with reminders, and a drift that varies" if is_installed("statsmodels") else "the extra [bench]"
        )
        print_line(f"no fit of the course: it needs {more}", stderr=True)
        return
    table = FittedTable(
        "chain",
        "coefficient",
        "estimate",
        "95 %",
        title="change of the drift = a - b drift - c reminder",
        numbers=("estimate", "95 %"),
    )
    for name, fit in found.items():
        for key, (value, low, high) in fit.estimates.items():
            table.add_row(name, MEANING[key], f"{value:.3f}", f"[{low:.3f}, {high:.3f}]")
    print_table(table)
