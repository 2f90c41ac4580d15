"""Rules of parameters: their words, their schema, and what they accept, by hand."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import pytest
from pydantic import ValidationError

from logitkit.errors import ParameterError, UnknownNameError
from logitkit.params import (
    Parameters,
    Resource,
    checked,
    declared,
    is_neutral,
    is_valid_unicode,
    model_of,
    number,
    option,
    rule_of,
    validate,
    whole,
)


class Cut:
    """A class with one parameter of each kind."""

    @checked
    def __init__(
        self,
        *,
        share: Annotated[float, number("share kept", neutral=1, gt=0, le=1)] = 0.5,
        least: Annotated[int | None, whole("tokens kept", neutral=0, ge=0)] = None,
        form: Annotated[Literal["diff", "ratio"], option("form")] = "diff",
        table: Annotated[Any, Resource()] = None,
        free: Any = None,
    ) -> None:
        self.values = share, least, form, table, free


FIELDS = {name: declared(Cut.__init__)[name] for name in ("share", "least", "form")}


@pytest.mark.parametrize(
    ("annotation", "want"),
    [
        (Annotated[float, number("x", gt=0, lt=1)], "a finite number > 0 and < 1"),
        (Annotated[int | None, whole("x", ge=2)], "a whole number >= 2 or None"),
        (Annotated[Literal["a", 1], option("x")], "one of 'a', 1"),
        (list[Annotated[int, whole("x", ge=0)]], "a list, each a whole number >= 0"),
        (tuple, "a tuple"),
        (list, "a list"),
        (bool, "true or false"),
        (str, "text"),
        (Resource, "a Resource"),
    ],
)
def test_rules_in_words(annotation: Any, want: str) -> None:
    """Each kind of annotation has its words, with the bounds in the order of their signs."""
    assert rule_of(annotation) == want


def test_neutral_values_are_in_the_schema() -> None:
    """The neutral value is in the JSON Schema where one is declared, and absent elsewhere."""
    properties = model_of("cut", FIELDS | {"plain": (Annotated[float, number("x")], 0.0)}).model_json_schema()[
        "properties"
    ]
    assert properties["share"]["neutral"] == 1 and properties["least"]["neutral"] == 0
    assert "neutral" not in properties["plain"] and "neutral" not in properties["form"]


def test_a_checked_constructor() -> None:
    """Values in range reach the constructor, with the defaults of the others; resources and plain types are free."""
    assert Cut().values == (0.5, None, "diff", None, None)
    assert Cut(share=1.0, least=0, form="ratio", table=3, free="x").values == (1.0, 0, "ratio", 3, "x")
    for name, wrong in {
        "share": [0.0, 1.01, math.nan, math.inf, "0.5", None],
        "least": [-1, 1.5, "1"],
        "form": ["sum", None],
    }.items():
        for value in wrong:
            with pytest.raises(ParameterError, match=f"Cut: {name} must be"):
                Cut(**{name: value})


def test_declared_parameters() -> None:
    """Resources, ``self`` and collected arguments are left out; a parameter without a default is required."""

    def init(
        self: Any, first: float, *rest: int, second: int = 2, table: Annotated[Any, Resource()], **more: Any
    ) -> None: ...

    fields = declared(init)
    assert list(fields) == ["first", "second"]
    assert fields["first"] == (float, ...) and fields["second"] == (int, 2)


def test_validated_values() -> None:
    """Only the given values are returned; unknown, absent, wrong and undecodable ones raise an error each."""
    model = model_of("cut", FIELDS | {"must": (str, ...)})
    assert validate("cut", model, {"must": "x", "share": 0.25}) == {"must": "x", "share": 0.25}
    with pytest.raises(UnknownNameError, match="parameter of cut"):
        validate("cut", model, {"must": "x", "shar": 1.0})
    with pytest.raises(ParameterError, match=r"cut: must must be given \(text\)"):
        validate("cut", model, {})
    with pytest.raises(ParameterError, match=r"cut: share must be a finite number > 0 and <= 1, got 2.0"):
        validate("cut", model, {"must": "x", "share": 2.0})
    with pytest.raises(ParameterError, match="cut: share must be a finite number"):
        validate("cut", model, {"must": "x", "share": "0.5"})
    with pytest.raises(ParameterError, match="must must be valid Unicode"):
        validate("cut", model, {"must": "\ud800"})


def test_models_are_strict_and_frozen() -> None:
    """A model of parameters takes no text for a number and no unknown name, and cannot be changed."""

    class Window(Parameters):
        size: Annotated[int, whole("tokens", ge=1)] = 8
        owner: Resource | None = None

    window = Window(size=3, owner=Resource())
    for values in ({"size": "3"}, {"sise": 3}, {"size": 0}):
        with pytest.raises(ValidationError):
            Window(**values)
    with pytest.raises(ValidationError, match="frozen"):
        window.size = 4


@pytest.mark.parametrize(
    ("value", "want"),
    [
        ("\ud7ff", True),
        ("\ud800", False),
        ("a\udfff", False),
        ("\ue000", True),
        (["a", ["\ud800"]], False),
        (("a", "é"), True),
        ({"\udc00": 1}, False),
        ({"a": {"b": "\udc00"}}, False),
        ({"a": 1}, True),
        (7, True),
    ],
)
def test_valid_unicode(value: Any, want: bool) -> None:
    """Lone surrogates, U+D800 to U+DFFF, are found at any depth, in keys too."""
    assert is_valid_unicode(value) == want


def test_neutral_up_to_rounding() -> None:
    """A value counts as neutral if it differs from the neutral value by at most 1e-12, for small and large values."""
    assert is_neutral(1 + 5e-13, 1) and is_neutral(-5e-13, 0)
    assert not is_neutral(1 + 2e-12, 1) and not is_neutral(2e-12, 0) and not is_neutral(1e6, 1e6 + 1e-6)
