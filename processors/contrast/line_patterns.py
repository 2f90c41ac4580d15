"""Patterns of single lines in prompts: headings, few-shot labels, code fences, quoted calls and literals."""

from __future__ import annotations

import re

_KIND = r"(?:exam[pb]les?|samples?|test cases?|doctests?)"
# The heading of a section of examples, such as ``Example 1:``; ``content`` is an example on the same line.
HEADING = re.compile(
    rf"(?:for (?:example|examble|instance)|e\.\s?g\.?|\[?inputs?\s?[/&]\s?outputs?\]?(?: {_KIND})?"
    rf"|(?:some |more |usage |sample |worked )?{_KIND}(?: (?:usage|inputs?|outputs?|tests?))?"
    r"|(?:sample |example )?(?:input|output)s?"
    r"|(?:here (?:are|is)|consider|see|some|the following|your (?:code|function|solution) (?:should|must) pass)\b"
    r"[^:]{0,60}\b(?:examples?|samples?|tests?|test cases?))"
    r"(?:\s*#?\(?\d{1,3}\)?)?\s*(?P<colon>[:.]?)(?P<content>.*)",
    re.IGNORECASE,
)
# The heading of any other section, such as ``Args:``.
OTHER_HEADING = re.compile(
    r"#{1,6}\s+(?-i:[A-Z])|(?:notes?|constrain(?:t|ts)?|variables?|requirements?|restrictions?|assumptions?"
    r"|arg(?:ument)?s|param(?:eter)?s|returns?|raises|yields|hints?|task|important|warnings?|remarks?|limits?)\s*:"
    r"|(?-i:(?!If |When )[A-Z])[\w ,/'-]{0,60}:$",
    re.IGNORECASE,
)
# The start of an explanation of an example.
EXPLANATION = re.compile(r"explanations?\b|because\b|reason(?:ing)?:", re.IGNORECASE)
# The input of a few-shot pair, such as ``Q:`` or ``Input 1:``.
QUESTION = re.compile(r"(?P<label>in(?:put)?|q(?:uestion)?)\s?\d*\s*:", re.IGNORECASE)
# The output of a few-shot pair; ``answer`` is empty where the model is to complete it.
ANSWER = re.compile(r"(?:out(?:put)?|a(?:nswer)?)\s?\d*\s*:(?P<answer>.*)", re.IGNORECASE)
# The first or last line of a Markdown code block.
FENCE = re.compile(r"(?P<ticks>`{3,}|~{3,})")
# The first word of a sentence rather than of an example.
PROSE_START = re.compile(
    r"(?:If|When|Note|The|You|Your|Returns?|Assume|It|All|Please|Each|There|This|These|Do|Use|Write|Now|Have|Implement)\b"
)
# The mark of a list item.
BULLET = re.compile(r"^(?:[*•+-]|\d{1,3}[.)])\s+")
# The start of a literal, perhaps after a name (``x = 3``).
VALUE = re.compile(r"(?:[A-Za-z_]\w*\s*[=:]\s*)?(?:[\[({\"'`]|-?\.?\d|(?:True|False|None|null|true|false|nil)\b)")
# The text between a call and its result, such as ``==``, ``->`` or ``should return``.
RESULT = (
    r"(?:={1,3}>?|[-=]{1,2}>|[➞→⇒↦]"
    r"|(?:should |must |will )?(?:return|returns|be|give|gives|equal|equals|yield|yields|is)\b)"
)
# A literal within the arguments of a call; a call without one is a recurrence or a signature.
LITERAL = re.compile(r"[\d\"'\[\]{}]|\b(?:True|False|None)\b")
# A line that belongs to an example if a section of examples is open.
EXAMPLE_TEXT = re.compile(
    r"[\[\](){}\"'\d+=>#*<.…➞→⇒`|\\,-]|.*(?:=|->|➞|→|⇒|\w[\[(]|^return\s*[\[(\"'\d]|\bshould (?:be|return)\b)"
)
# An assertion about a call.
ASSERT = re.compile(r"assert\s+(?:not\s+)?\(*[\w.]+\s*[(\[]")
# The end of a line that the model is to complete.
UNFINISHED = re.compile(r"(?:[:=➞→⇒]|[-=]>)\s*$")
# A word that announces a definition, in whose lines calls are no examples.
DEFINITION = re.compile(r"\b(?:defin|recurrence|formula|as follows|rules?\b)", re.IGNORECASE)


def is_other_heading(line: str) -> bool:
    """Return whether a line is a heading of another kind, which closes an example section."""
    return OTHER_HEADING.match(line) is not None and EXPLANATION.match(line) is None and not VALUE.match(line)


def is_example_text(line: str) -> bool:
    """Return whether a line inside an example section is part of an example rather than prose."""
    return PROSE_START.match(line) is None and EXAMPLE_TEXT.match(line) is not None
