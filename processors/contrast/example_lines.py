"""Recognition of the lines of a prompt that are input/output examples.

The rules recognise headed sections, doctests, quoted calls, fenced blocks and answered question-answer pairs. All of
them are heuristics of this project. A doubtful line is no example, because a lost requirement does more harm than a
remaining example.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from logitkit.processors.contrast.line_patterns import (
    ANSWER,
    ASSERT,
    BULLET,
    DEFINITION,
    EXPLANATION,
    FENCE,
    HEADING,
    LITERAL,
    PROSE_START,
    QUESTION,
    RESULT,
    UNFINISHED,
    VALUE,
    is_example_text,
    is_other_heading,
)


@dataclass(frozen=True)
class _Section:
    """An open section of examples.

    Attributes:
        indent: the indent of its heading, in characters.
        until_heading: whether only another heading closes the section, as under a Markdown heading.
    """

    indent: int
    until_heading: bool


def example_lines(lines: Sequence[str], names: Collection[str]) -> set[int]:
    """Return the indices of the lines that are examples, and of the blank lines that belong to them.

    Args:
        lines: a docstring or a plain prompt, split at line breaks.
        names: the functions that the prompt defines. A line that quotes a call of such a function can be an example.

    Example:
        >>> sorted(example_lines(["Add one.", "", "f(1) == 2", "f(2) == 3", "", "x is an integer."], ["f"]))
        [2, 3, 4]
    """
    end = _open_question_start(lines)
    examples = _answered_questions(lines, end) | _quoted_calls(lines, names)
    examples |= _sections(lines[:end], examples)
    return examples | _orphaned_blanks(lines, examples)


def _sections(lines: Sequence[str], known: Collection[int]) -> set[int]:
    """Return the lines of example sections, doctests and fenced blocks of examples.

    Args:
        lines: the prompt.
        known: indices of lines that other rules recognised as examples.
    """
    examples: set[int] = set()
    section: _Section | None = None
    index = 0
    while index < len(lines):
        line = lines[index].strip()
        fence = _fence_end(lines, index)
        step = 1
        if fence is None and FENCE.match(line):
            break  # an open fence: the model is to continue the code block
        if fence is not None:
            step = fence - index
            if section or _only_examples(lines[index + 1 : fence - 1]):
                examples.update(range(index, fence))
        elif line.startswith(">>>"):
            step = _doctest_end(lines, index) - index
            examples.update(range(index, index + step))
        elif line and (opened := _opened_section(lines, index, section)) is not None:
            examples.add(index)
            section = opened
        elif line and is_other_heading(line) and index not in known:
            section = None
        elif line and section and EXPLANATION.match(line):
            step = _explanation_end(lines, index) - index
            examples.update(range(index, index + step))
        elif line and section and index not in known:
            if is_example_text(line):
                examples.add(index)
            elif not section.until_heading and _indent(lines[index]) <= section.indent:
                section = None
        index += step
    return examples


def _opened_section(lines: Sequence[str], index: int, section: _Section | None) -> _Section | None:
    """Return the section that a heading of examples opens; None if the line is no heading of examples."""
    raw = lines[index].strip()
    line = raw.lstrip("#*_ ").rstrip("*_ ") if raw[:1] in "#*_" else raw
    match = HEADING.fullmatch(line.replace(":**", ":").replace("**", ""))
    if match is None:
        return None
    content = match["content"].strip()  # an example on the line of the heading
    heading = line.lower()
    if not content and match["colon"] != ":" and not (raw.startswith("#") or _examples_follow(lines, index)):
        return None
    if heading.startswith(("input", "output")) and section is None:
        value = content or next((later.strip() for later in lines[index + 1 :] if later.strip()), "")
        answered = any(re.match(r"\W*output", later.strip(), re.IGNORECASE) for later in lines[index + 1 :])
        if not VALUE.match(value) or not (answered or heading.startswith("output")):
            return None
    if (
        content
        and not heading.startswith("e.g")
        and (match["colon"] != ":" or not (is_example_text(content) or section))
    ):
        return None
    if section and heading.startswith(("input", "output")):
        return section
    return _Section(_indent(lines[index]), until_heading=raw.startswith("#"))


def _examples_follow(lines: Sequence[str], index: int) -> bool:
    """Return whether the first text below a heading without a colon (``Example``) looks like an example."""
    after = next((later.strip() for later in lines[index + 1 :] if later.strip()), "")
    return bool(after) and (
        is_example_text(after) or FENCE.match(after) is not None or HEADING.match(after) is not None
    )


def _doctest_end(lines: Sequence[str], index: int) -> int:
    """Return the index after a doctest and its output, which a blank line, a heading, a fence or prose ends."""
    for after in range(index + 1, len(lines)):
        line = lines[after].strip()
        if line.startswith(("...", ">>>")) or VALUE.match(line):
            continue
        error = re.match(r"Traceback|\w*(?:Error|Exception|Warning)\b", line)
        sentence = PROSE_START.match(line) or (line.endswith(".") and line.count(" ") >= 4)
        if not line or (error is None and (sentence or is_other_heading(line) or FENCE.match(line))):
            return after
    return len(lines)


def _explanation_end(lines: Sequence[str], index: int) -> int:
    """Return the index after an explanation, which a blank line, a heading, a fence or the next example ends."""
    for after in range(index + 1, len(lines)):
        line = lines[after].strip()
        if not line or is_other_heading(line) or QUESTION.match(line) or re.match(r"\w+\(", line) or FENCE.match(line):
            return after
    return len(lines)


def _quoted_calls(lines: Sequence[str], names: Collection[str]) -> set[int]:
    """Return lines such as ``f(1) == 2`` and ``assert f(1) == 2``.

    A group of calls that contains a recurrence (``f(n) = f(n - 1)``) is a definition, and none of its lines is
    returned.
    """
    call = None
    if names:
        any_name = "|".join(map(re.escape, sorted(names)))
        call = re.compile(
            rf"(?:assert\s+|for\s+)?(?:\w+\()?(?:{any_name})\s?\((?P<arguments>.*?)\)\s*#?\s*{RESULT}\s*\S"
        )
    examples: set[int] = set()
    group: list[int] = []
    has_recurrence = False
    for index, raw in enumerate([*lines, ""]):
        line = BULLET.sub("", raw.strip(), count=1)
        match = call.match(line) if call else None
        if match and (LITERAL.search(match["arguments"]) or not match["arguments"].strip()):
            group.append(index)
        elif match:
            has_recurrence = True
        elif ASSERT.match(line):
            examples.add(index)
        else:
            above = lines[group[0] - 1] if group and group[0] else ""
            if not (has_recurrence or (DEFINITION.search(above) and above.rstrip().endswith(":"))):
                examples.update(group)
            group, has_recurrence = [], False
    return examples


def _open_question_start(lines: Sequence[str]) -> int:
    """Return the index of the unanswered question at the end of the prompt; ``len(lines)`` if there is none."""
    questions = [index for index, line in enumerate(lines) if QUESTION.match(line.strip())]
    if not questions:
        last = max((index for index, line in enumerate(lines) if line.strip()), default=0)
        return last if last and UNFINISHED.search(lines[last]) else len(lines)
    tail = [line.strip() for line in lines[questions[-1] + 1 :] if line.strip()]
    answers = [match for line in tail if (match := ANSWER.match(line))]
    last_question = QUESTION.match(lines[questions[-1]].strip())
    if answers and (answers[0]["answer"].strip() or ANSWER.match(tail[-1]) is None):
        return len(lines)
    is_open = last_question and (answers or last_question["label"].lower().startswith("q"))
    return questions[-1] if is_open else len(lines)


def _answered_questions(lines: Sequence[str], end: int) -> set[int]:
    """Return the lines of few-shot pairs before index ``end``.

    Pairs are examples where at least two questions are answered, or one before an open question. Pairs labelled as
    questions (``Q:``) are examples only before an open question.
    """
    questions = [index for index in range(end) if QUESTION.match(lines[index].strip())]
    examples: set[int] = set()
    for start, stop in pairwise([*questions, end]):
        answer = next((i for i in range(start + 1, stop) if ANSWER.match(lines[i].strip())), None)
        if answer is not None and (end < len(lines) or len(questions) > 1):
            last = stop if stop < end or end < len(lines) else answer + 1
            last = next((i for i in range(answer + 1, last) if is_other_heading(lines[i].strip())), last)
            examples.update(range(start, last))
    if end == len(lines) and any(lines[index].strip().lower().startswith("q") for index in questions):
        return set()
    return examples


def _fence_end(lines: Sequence[str], index: int) -> int | None:
    """Return the index after the closed fenced block that starts at ``index``; None if no such block starts there."""
    opening = FENCE.match(lines[index].strip())
    if opening is None:
        return None
    for after in range(index + 1, len(lines)):
        line = lines[after].strip()
        if line.startswith(opening["ticks"]) and not line.strip("`~"):
            return after + 1
    return None


def _only_examples(lines: Sequence[str]) -> bool:
    """Return whether the inside of a fenced block starts with a doctest or consists of assertions."""
    text = [line.strip() for line in lines if line.strip()]
    return bool(text) and (text[0].startswith(">>>") or all(ASSERT.match(line) for line in text))


def _orphaned_blanks(lines: Sequence[str], examples: Collection[int]) -> set[int]:
    """Return the blank lines to remove with examples.

    These are the blank lines directly after an example, and, where an example ends the text, those directly before it.
    """
    blanks: set[int] = set()
    last = len(lines) - 1
    for index in range(1, last):
        if not lines[index].strip() and (index - 1 in examples or index - 1 in blanks):
            blanks.add(index)
    removed = {*examples, *blanks}
    index = last if lines and not lines[last].strip() else last + 1
    while index - 1 in removed:
        index -= 1
    if index - 1 >= 1 and index <= last and index in removed:
        while index > 1 and not lines[index - 1].strip():
            index -= 1
            blanks.add(index)
    return blanks - set(examples)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
