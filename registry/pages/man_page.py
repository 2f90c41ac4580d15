"""The facts of a Spec as a man page and as Markdown, for `logitkit show` and the documentation.

A page of the documentation may hold marks: ``<!-- spec: uscd -->`` is replaced by the facts of ``uscd``,
``<!-- family: transformers -->`` by those of every processor of a family, and ``<!-- laws -->`` by the list of laws.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from logitkit.params import rule_of
from logitkit.registry.discovery import default_registry
from logitkit.registry.spec import Spec

NO_MODE_REFUSED = "no mode is refused"


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter in words.

    Attributes:
        name: of the parameter.
        rule: the allowed values, as in errors.
        default: ``default 0.5``, or ``required``.
        neutral: the value at which the processor changes nothing; empty if there is none.
        help: one line.
    """

    name: str
    rule: str
    default: str
    neutral: str
    help: str


def parameters(spec: Spec) -> list[Parameter]:
    """Return the parameters of a processor, in the order in which a chain accepts them."""
    described = []
    for name, field in spec.model.model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        described.append(
            Parameter(
                name=name,
                rule=rule_of(field.annotation, tuple(field.metadata)),
                default="required" if field.is_required() else f"default {written(field.default)}",
                neutral=str(extra.get("neutral", "")),
                help=field.description or "",
            )
        )
    return described


def written(value: object) -> str:
    """Return a default as a person writes it: a fraction of small numbers as such.

    >>> written(2 / 3), written(0.894), written("diff"), written(1e-6), written(None)
    ('2/3', '0.894', "'diff'", '1e-06', 'None')
    """
    text = repr(value)
    if isinstance(value, float) and len(text) > 8 and math.isfinite(value):
        fraction = Fraction(value).limit_denominator(20)
        if float(fraction) == value:
            return str(fraction)
    return text


def sections(spec: Spec) -> list[tuple[str, str]]:
    """Return the man page of a processor as (heading, text); a text may be empty."""
    lines = []
    for parameter in parameters(spec):
        neutral = f", off at {parameter.neutral}" if parameter.neutral else ""
        lines.append(f"{parameter.name}: {parameter.rule} ({parameter.default}{neutral})\n    {parameter.help}")
    return [
        ("NAME", f"{spec.name} - {spec.summary}"),
        ("FORMULA", spec.formula),
        ("PARAMETERS", "\n".join(lines)),
        ("NEEDS", "\n".join(spec.needs)),
        ("EXTRA FORWARDS A TOKEN", spec.cost),
        ("WHEN IT DOES HARM", spec.failure),
        ("REFUSED MODES", "\n".join(f"{mode}: {reason}" for mode, reason in spec.modes.items())),
        ("LAWS IT CANNOT KEEP", "\n".join(f"{law}: {reason}" for law, reason in spec.laws.items())),
        ("SOURCE", spec.source),
        ("OFFERED BY", f"{spec.plugin}, {spec.target}, revision {spec.revision}"),
    ]


def markdown(spec: Spec) -> str:
    """Return the same facts as Markdown: summary, formula, a table of parameters, and a list."""
    module, _, name = spec.target.partition(":")
    refused = "; ".join(f"not {mode}: {reason}" for mode, reason in spec.modes.items())
    facts = [
        ("Source", re.sub(r"arXiv:([\d.]+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", spec.source)),
        ("Needs", "; ".join(spec.needs)),
        ("Extra forwards a token", spec.cost),
        ("When it does harm", spec.failure),
        ("Modes of generating", refused or NO_MODE_REFUSED),
        ("Laws it cannot keep", "; ".join(f"{law}: {reason}" for law, reason in spec.laws.items())),
        ("Class", f"`{module}.{name}`"),
    ]
    formula = f"\n```text\n{spec.formula}\n```\n" if spec.formula else ""
    rows = [
        f"| `{parameter.name}` | {_cell(parameter.rule)} | {_default(parameter.default)} "
        f"| {parameter.neutral} | {_cell(parameter.help)} |"
        for parameter in parameters(spec)
    ]
    table = "\n| parameter | rule | default | off at | meaning |\n|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
    listed = "".join(f"\n- **{term}**: {text}." for term, text in facts if text)
    return f"{spec.summary}\n{formula}{table if rows else ''}{listed}\n"


def _default(text: str) -> str:
    """Return a default as the text of a cell; a list, whose quotes and signs Markdown would read, as code."""
    value = _cell(text.removeprefix("default "))
    return f"`{value}`" if value.startswith("[") else value


def filled(page: str) -> str:
    """Return a page of the documentation with its marks replaced.

    Raises:
        UnknownNameError: a mark names no processor.
    """
    marks: dict[str, Callable[[str], str]] = {
        "spec": lambda name: markdown(default_registry().describe(name)),
        "family": _family,
        "laws": lambda _: _laws(),
    }
    return re.sub(r"<!-- (spec|family|laws)(?:: (\w+))? -->", lambda mark: marks[mark[1]](mark[2]), page)


def _family(family: str) -> str:
    """Return the facts of every processor of a family, each under its own heading."""
    registry = default_registry()
    specs = [registry.describe(name) for name in registry.names(kind=None)]
    return "\n".join(f"## {spec.name}\n\n{markdown(spec)}" for spec in specs if spec.family == family)


def _laws() -> str:
    """Return the laws as a list, each in the words of its docstring."""
    from logitkit.registry.laws import LAWS

    return "\n".join(f"- **{name}**: {(law.__doc__ or '').strip()}" for name, law in LAWS.items())


def _cell(text: str) -> str:
    """Return text that is allowed in a cell of a Markdown table."""
    return text.replace("|", r"\|").replace("\n", " ")
