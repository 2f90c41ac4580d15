"""The mapping that names an attribute: a check of its entries, and the folds that they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from logitkit.errors import ParameterError, UnknownNameError
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.call_vocabulary import call_vocabulary
from logitkit.processors.samplers.attributes import Attribute, Avoids, Contains, Length, Varied

KINDS = ("length", "spread", "varied", "contains", "avoids", "head", "model", "label")
SPREAD = 2.0  # tokens


def checked_parts(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping of an attribute after a check of its entries.

    Raises:
        UnknownNameError: an entry of another name.
        ParameterError: a value that breaks its rule, or no attribute at all.

    Example:
        >>> checked_parts({"length": 20})
        {'length': 20}
    """
    owner = "attribute"
    for name, value in parts.items():
        if name not in KINDS:
            raise UnknownNameError("attribute", name, KINDS)
        whole_number = isinstance(value, int) and not isinstance(value, bool)
        if name == "length" and not (whole_number and value >= 0):
            raise ParameterError(owner, name, "a whole number >= 0", value)
        if name == "varied" and not (whole_number and value >= 1):
            raise ParameterError(owner, name, "a whole number >= 1", value)
        if name == "spread" and not (isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0):
            raise ParameterError(owner, name, "a number > 0", value)
        if name in ("contains", "avoids"):
            texts = isinstance(value, (list, tuple)) and all(isinstance(text, str) and text for text in value)
            if not (texts and value):
                raise ParameterError(owner, name, "a list of texts, none empty", value)
        if name in ("model", "head") and not isinstance(value, str):
            rule = "the name of an object passed to bind" + (", or a folder" if name == "head" else "")
            raise ParameterError(owner, name, rule, value)
    for name, needed in (("spread", "length"), ("label", "model")):
        if name in parts and needed not in parts:
            raise ParameterError(owner, name, f"given beside {needed!r}", parts[name])
    if not set(parts) - {"spread", "label"}:
        raise ParameterError(owner, "scorer", "a mapping with an attribute, such as {'length': 20}", dict(parts))
    return dict(parts)


def attributes_of(parts: Mapping[str, Any], binding: Binding) -> list[Attribute]:
    """Return the attributes of a checked mapping that are folds over tokens."""
    found: list[Attribute] = []
    if "length" in parts:
        found.append(Length(parts["length"], float(parts.get("spread", SPREAD))))
    if "varied" in parts:
        found.append(Varied(parts["varied"]))
    for name, kind in (("contains", Contains), ("avoids", Avoids)):
        if name in parts:
            token_bytes = cast(Sequence[bytes | None], call_vocabulary(binding).token_bytes)
            found.append(kind(parts[name], token_bytes, [*map(len, binding.prompts.removed)]))
    return found
