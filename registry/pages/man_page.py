"""What is known about a processor, from its Spec: read by `logitkit show` and by the documentation.

In a page of the documentation ``<!-- spec: uscd -->`` stands for what is known about `uscd`,
``<!-- family: transformers -->`` for every processor of a family, and ``<!-- laws -->`` for the laws.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from logitkit.params import rule_of
from logitkit.registry.discovery import default_registry
from logitkit.registry.spec import Spec

REFUSES_NOTHING = "none is refused"


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter in words; ``neutral`` is the value at which it changes nothing, or empty."""

    name: str
    rule: str
    default: str
    neutral: str
    help: str


def parameters(spec: Spec) -> list[Parameter]:
    """The parameters of a processor, in order."""
    found = []
    for name, field in spec.model.model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        found.append(
            Parameter(
                name=name,
                rule=rule_of(field.annotation, tuple(field.metadata)),
                default="required" if field.is_required() else f"default {field.default!r}",
                neutral=str(extra.get("neutral", "")),
                help=field.description or "",
            )
        )
    return found


def sections(spec: Spec) -> list[tuple[str, str]]:
    """The man page of a processor, as (heading, text); a text may be empty."""
    lines = []
    for one in parameters(spec):
        off = f", off at {one.neutral}" if one.neutral else ""
        lines.append(f"{one.name}: {one.rule} ({one.default}{off})\n    {one.help}")
    return [
        ("NAME", f"{spec.name} - {spec.summary}"),
        ("FORMULA", spec.formula),
        ("PARAMETERS", "\n".join(lines)),
        ("NEEDS", "\n".join(spec.needs)),
        ("COST", f"beyond plain decoding: {spec.cost}"),
        ("WHEN IT DOES HARM", spec.failure),
        ("REFUSED MODES", "\n".join(f"{mode}: {why}" for mode, why in spec.modes.items())),
        ("LAWS IT CANNOT KEEP", "\n".join(f"{law}: {why}" for law, why in spec.laws.items())),
        ("SOURCE", spec.source),
        ("OFFERED BY", f"{spec.plugin}, {spec.target}"),
    ]


def markdown(spec: Spec) -> str:
    """The same as Markdown: summary, formula, a table of parameters, and the facts."""
    module, _, name = spec.target.partition(":")
    facts = [
        ("Source", re.sub(r"arXiv:([\d.]+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", spec.source)),
        ("Needs", "; ".join(spec.needs)),
        ("Extra forwards a token", spec.cost),
        ("When it does harm", spec.failure),
        ("Ways of generating", "; ".join(f"not {mode}: {why}" for mode, why in spec.modes.items()) or REFUSES_NOTHING),
        ("Laws it cannot keep", "; ".join(f"{law}: {why}" for law, why in spec.laws.items())),
        ("Class", f"`{module}.{name}`"),
    ]
    formula = f"\n```text\n{spec.formula}\n```\n" if spec.formula else ""
    rows = [
        f"| `{one.name}` | {_cell(one.rule)} | {_cell(one.default.removeprefix('default '))} | {one.neutral} "
        f"| {_cell(one.help)} |"
        for one in parameters(spec)
    ]
    table = "\n| parameter | rule | default | off at | meaning |\n|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
    told = "".join(f"\n- **{term}**: {text}." for term, text in facts if text)
    return f"{spec.summary}\n{formula}{table if rows else ''}{told}\n"


def filled(page: str) -> str:
    """A page of the documentation with its marks replaced by what they stand for.

    Raises:
        UnknownNameError: a mark names no processor, or there is no such mark.
    """
    marks: dict[str, Callable[[str], str]] = {
        "spec": lambda name: markdown(default_registry().describe(name)),
        "family": _family,
        "laws": lambda _: _laws(),
    }
    return re.sub(r"<!-- (spec|family|laws)(?:: (\w+))? -->", lambda mark: marks[mark[1]](mark[2]), page)


def _family(family: str) -> str:
    """Every processor of a family, each under its own heading."""
    registry = default_registry()
    specs = [registry.describe(name) for name in registry.names()]
    return "\n".join(f"## {spec.name}\n\n{markdown(spec)}" for spec in specs if spec.family == family)


def _laws() -> str:
    """The laws, one a line, each in the words of its docstring."""
    from logitkit.registry.laws import LAWS

    return "\n".join(f"- **{name}**: {(law.__doc__ or '').strip()}" for name, law in LAWS.items())


def _cell(text: str) -> str:
    """Text that may stand in a cell of a Markdown table."""
    return text.replace("|", r"\|").replace("\n", " ")
