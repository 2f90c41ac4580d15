"""Which lines of a prompt are examples: sections, doctests, quoted calls, fenced blocks, answered pairs.

All rules are heuristics over lines, ours. In doubt a line stays: a requirement lost hurts more than an
example kept.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

_KIND = r"(?:exam[pb]les?|samples?|test cases?|doctests?)"
_HEADING = re.compile(
    rf"(?:for (?:example|examble|instance)|e\.\s?g\.?|\[?inputs?\s?[/&]\s?outputs?\]?(?: {_KIND})?"
    rf"|(?:some |more |usage |sample |worked )?{_KIND}(?: (?:usage|inputs?|outputs?|tests?))?"
    r"|(?:sample |example )?(?:input|output)s?"
    r"|(?:here (?:are|is)|consider|see|some|the following|your (?:code|function|solution) (?:should|must) pass)\b"
    r"[^:]{0,60}\b(?:examples?|samples?|tests?|test cases?))"
    r"(?:\s*#?\(?\d{1,3}\)?)?\s*(?P<colon>[:.]?)(?P<rest>.*)",
    re.IGNORECASE,
)
_OTHER_HEADING = re.compile(
    r"#{1,6}\s+(?-i:[A-Z])|(?:notes?|constrain(?:t|ts)?|variables?|requirements?|restrictions?|assumptions?"
    r"|arg(?:ument)?s|param(?:eter)?s|returns?|raises|yields|hints?|task|important|warnings?|remarks?|limits?)\s*:"
    r"|(?-i:(?!If |When )[A-Z])[\w ,/'-]{0,60}:$",
    re.IGNORECASE,
)
_EXPLANATION = re.compile(r"explanations?\b|because\b|reason(?:ing)?:", re.IGNORECASE)
_PAIR = re.compile(r"(?P<ask>in(?:put)?|q(?:uestion)?)\s?\d*\s*:(?P<asked>.*)", re.IGNORECASE)
_ANSWER = re.compile(r"(?:out(?:put)?|a(?:nswer)?)\s?\d*\s*:(?P<answer>.*)", re.IGNORECASE)
_FENCE = re.compile(r"(?P<ticks>`{3,}|~{3,})")
_PROSE_START = re.compile(
    r"(?:If|When|Note|The|You|Your|Returns?|Assume|It|All|Please|Each|There|This|These|Do|Use|Write|Now|Have|Implement)\b"
)
_BULLET = re.compile(r"^(?:[*•+-]|\d{1,3}[.)])\s+")
_VALUE = re.compile(r"(?:[A-Za-z_]\w*\s*[=:]\s*)?(?:[\[({\"'`]|-?\.?\d|(?:True|False|None|null|true|false|nil)\b)")
_RESULT = (
    r"(?:={1,3}>?|[-=]{1,2}>|[➞→⇒↦]"
    r"|(?:should |must |will )?(?:return|returns|be|give|gives|equal|equals|yield|yields|is)\b)"
)
_LITERAL = re.compile(r"[\d\"'\[\]{}]|\b(?:True|False|None)\b")
_SHOWN = re.compile(
    r"[\[\](){}\"'\d+=>#*<.…➞→⇒`|\\,-]|.*(?:=|->|➞|→|⇒|\w[\[(]|^return\s*[\[(\"'\d]|\bshould (?:be|return)\b)"
)
_ASSERT = re.compile(r"assert\s+(?:not\s+)?\(*[\w.]+\s*[(\[]")
_UNFINISHED = re.compile(r"(?:[:=➞→⇒]|[-=]>)\s*$")
_DEFINITION = re.compile(r"\b(?:defin|recurrence|formula|as follows|rules?\b)", re.IGNORECASE)


@dataclass(frozen=True)
class _Section:
    """An open example section: the indent of its heading, and whether only a heading can close it."""

    indent: int
    lasting: bool


def example_lines(lines: Sequence[str], names: Collection[str]) -> set[int]:
    """Return the indices of the lines that are examples, blank lines around them included.

    Args:
        lines: a docstring or a plain prompt, split at line breaks.
        names: functions the prompt defines; a line that quotes a call of one may be an example.
    """
    end = _open_question(lines)
    found = _answered(lines, end) | _quoted_calls(lines, names)
    found |= _sections(lines[:end], found)
    return found | _loose_blanks(lines, found)


def _sections(lines: Sequence[str], known: Collection[int]) -> set[int]:
    """Lines of example sections, doctests and example fences; `known` are examples already."""
    found: set[int] = set()
    section: _Section | None = None
    place = 0
    while place < len(lines):
        line = lines[place].strip()
        fence = _fence_end(lines, place)
        step = 1
        if fence is None and _FENCE.match(line):
            break  # an open fence is where the model is to go on
        if fence is not None:
            step = fence - place
            if section or _only_examples(lines[place + 1 : fence - 1]):
                found.update(range(place, fence))
        elif line.startswith(">>>"):
            step = _doctest_end(lines, place) - place
            found.update(range(place, place + step))
        elif line and (opened := _opens(lines, place, section)) is not None:
            found.add(place)
            section = opened
        elif line and _closes(line) and place not in known:
            section = None
        elif line and section and _EXPLANATION.match(line):
            step = _explanation_end(lines, place) - place
            found.update(range(place, place + step))
        elif line and section and place not in known:
            if _is_shown(line):
                found.add(place)
            elif not section.lasting and _indent(lines[place]) <= section.indent:
                section = None
        place += step
    return found


def _opens(lines: Sequence[str], place: int, section: _Section | None) -> _Section | None:
    """The section a line heads, None if it is no heading of examples."""
    raw = lines[place].strip()
    line = raw.lstrip("#*_ ").rstrip("*_ ") if raw[:1] in "#*_" else raw
    match = _HEADING.fullmatch(line.replace(":**", ":").replace("**", ""))
    if match is None:
        return None
    rest = match["rest"].strip()
    word = line.lower()
    if not rest and match["colon"] != ":" and not (raw.startswith("#") or _examples_follow(lines, place)):
        return None
    if word.startswith(("input", "output")) and section is None:
        value = rest or next((later.strip() for later in lines[place + 1 :] if later.strip()), "")
        answered = any(re.match(r"\W*output", later.strip(), re.IGNORECASE) for later in lines[place + 1 :])
        if not _VALUE.match(value) or not (answered or word.startswith("output")):
            return None
    if rest and not word.startswith("e.g") and (match["colon"] != ":" or not (_is_shown(rest) or section)):
        return None
    kept = section if section and word.startswith(("input", "output")) else None
    return kept or _Section(_indent(lines[place]), raw.startswith("#"))


def _examples_follow(lines: Sequence[str], place: int) -> bool:
    """Whether what stands under a bare word (``Example``) reads like an example."""
    after = next((later.strip() for later in lines[place + 1 :] if later.strip()), "")
    return bool(after) and (_is_shown(after) or _FENCE.match(after) is not None or _HEADING.match(after) is not None)


def _closes(line: str) -> bool:
    return _OTHER_HEADING.match(line) is not None and _EXPLANATION.match(line) is None and not _VALUE.match(line)


def _is_shown(line: str) -> bool:
    """Whether a line inside an example section is part of an example rather than prose."""
    return _PROSE_START.match(line) is None and _SHOWN.match(line) is not None


def _doctest_end(lines: Sequence[str], place: int) -> int:
    """The line after a doctest and its output: a blank line, a heading or prose."""
    for after in range(place + 1, len(lines)):
        line = lines[after].strip()
        if line.startswith(("...", ">>>")) or _VALUE.match(line):
            continue
        error = re.match(r"Traceback|\w*(?:Error|Exception|Warning)\b", line)
        sentence = _PROSE_START.match(line) or (line.endswith(".") and line.count(" ") >= 4)
        if not line or (error is None and (sentence or _closes(line) or _FENCE.match(line))):
            return after
    return len(lines)


def _explanation_end(lines: Sequence[str], place: int) -> int:
    """The line after an explanation, which runs to a blank line, a heading or the next quoted call."""
    for after in range(place + 1, len(lines)):
        line = lines[after].strip()
        if not line or _closes(line) or _PAIR.match(line) or re.match(r"\w+\(", line) or _FENCE.match(line):
            return after
    return len(lines)


def _quoted_calls(lines: Sequence[str], names: Collection[str]) -> set[int]:
    """Lines such as ``f(1) == 2`` and ``assert f(1) == 2``, but no recurrences (``f(n) = f(n - 1)``)."""
    call = None
    if names:
        either = "|".join(map(re.escape, sorted(names)))
        call = re.compile(rf"(?:assert\s+|for\s+)?(?:\w+\()?(?:{either})\s?\((?P<given>.*?)\)\s*#?\s*{_RESULT}\s*\S")
    found: set[int] = set()
    group: list[int] = []
    defines = False
    for place, raw in enumerate([*lines, ""]):
        line = _BULLET.sub("", raw.strip(), count=1)
        match = call.match(line) if call else None
        if match and (_LITERAL.search(match["given"]) or not match["given"].strip()):
            group.append(place)
        elif match:
            defines = True
        elif _ASSERT.match(line):
            found.add(place)
        else:
            above = lines[group[0] - 1] if group and group[0] else ""
            if not (defines or (_DEFINITION.search(above) and above.rstrip().endswith(":"))):
                found.update(group)
            group, defines = [], False
    return found


def _open_question(lines: Sequence[str]) -> int:
    """Where the question starts that the prompt ends with, ``len(lines)`` if there is none."""
    asks = [place for place, line in enumerate(lines) if _PAIR.match(line.strip())]
    if not asks:
        last = max((place for place, line in enumerate(lines) if line.strip()), default=0)
        return last if last and _UNFINISHED.search(lines[last]) else len(lines)
    tail = [line.strip() for line in lines[asks[-1] + 1 :] if line.strip()]
    answers = [match for line in tail if (match := _ANSWER.match(line))]
    asked = _PAIR.match(lines[asks[-1]].strip())
    if answers and (answers[0]["answer"].strip() or _ANSWER.match(tail[-1]) is None):
        return len(lines)
    return asks[-1] if asked and (answers or asked["ask"].lower().startswith("q")) else len(lines)


def _answered(lines: Sequence[str], end: int) -> set[int]:
    """Few-shot pairs: two or more that are answered, or at least one before an open question."""
    asks = [place for place in range(end) if _PAIR.match(lines[place].strip())]
    found: set[int] = set()
    for start, stop in pairwise([*asks, end]):
        answer = next((p for p in range(start + 1, stop) if _ANSWER.match(lines[p].strip())), None)
        if answer is not None and (end < len(lines) or len(asks) > 1):
            last = stop if stop < end or end < len(lines) else answer + 1
            last = next((p for p in range(answer + 1, last) if _closes(lines[p].strip())), last)
            found.update(range(start, last))
    if end == len(lines) and any(lines[place].strip().lower().startswith("q") for place in asks):
        return set()
    return found


def _fence_end(lines: Sequence[str], place: int) -> int | None:
    """The line after a fenced block that starts here and is closed, else None."""
    opening = _FENCE.match(lines[place].strip())
    if opening is None:
        return None
    for after in range(place + 1, len(lines)):
        line = lines[after].strip()
        if line.startswith(opening["ticks"]) and not line.strip("`~"):
            return after + 1
    return None


def _only_examples(lines: Sequence[str]) -> bool:
    """Whether a fenced block shows nothing but doctests or assertions."""
    inner = [line.strip() for line in lines if line.strip()]
    return bool(inner) and (inner[0].startswith(">>>") or all(_ASSERT.match(line) for line in inner))


def _loose_blanks(lines: Sequence[str], found: Collection[int]) -> set[int]:
    """Blank lines an example leaves behind: all after it, and those before it where nothing follows."""
    loose: set[int] = set()
    last = len(lines) - 1
    for place in range(1, last):
        if not lines[place].strip() and (place - 1 in found or place - 1 in loose):
            loose.add(place)
    gone = {*found, *loose}
    place = last if lines and not lines[last].strip() else last + 1
    while place - 1 in gone:
        place -= 1
    if place - 1 >= 1 and place <= last and place in gone:
        while place > 1 and not lines[place - 1].strip():
            place -= 1
            loose.add(place)
    return loose - set(found)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
