"""The texts of the template of ``logitkit new-plugin``, which authors replace, and where a Spec still has them."""

from __future__ import annotations

from collections.abc import Mapping

from logitkit.registry.spec import Spec

TEXTS: Mapping[str, str] = {
    "summary": "Raise the probability of probable tokens.",
    "source": "the source of the method, such as arXiv:1234.56789",
    "formula": "(1 + strength) * log p",
    "failure": "a large strength approaches greedy decoding",
}


def unedited(spec: Spec) -> str:
    """Return a sentence that names the texts of a Spec that are still those of the template, or "".

    >>> unedited(Spec(name="mine", summary=TEXTS["summary"], source="me", target="mine:Mine"))
    'mine: summary must describe the processor, got the text of the template; edit the Spec'
    >>> unedited(Spec(name="mine", summary="Say no.", source="me", target="mine:Mine"))
    ''
    """
    kept = [name for name, text in TEXTS.items() if getattr(spec, name).strip() == text]
    if not kept:
        return ""
    *first, last = kept
    names = f"{', '.join(first)} and {last}" if first else last
    each = "the texts" if first else "the text"
    return f"{spec.name}: {names} must describe the processor, got {each} of the template; edit the Spec"
