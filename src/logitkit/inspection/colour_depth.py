"""How deep the colour of a token is on a page, 0 to 1, as text for a style."""

from __future__ import annotations

import math

DIVERGENCES = (0.001, 0.01, 0.1, 0.3, 1.0)  # bits that the legend of a divergence shows


def divergence_depth(js_bits: float) -> str:
    """Return the Jensen-Shannon distance: the root of the divergence, in bits.

    Most divergences are close to 0. The root is a metric and separates small values visibly.

    >>> divergence_depth(0.25)
    '0.500'
    """
    return f"{math.sqrt(js_bits):.3f}"


def proportional_depth(value: float, deepest: float) -> str:
    """Return a quantity as a part of the value from which on the colour is deepest.

    >>> proportional_depth(2.0, 8.0), proportional_depth(9.0, 8.0), proportional_depth(-1.0, 8.0)
    ('0.250', '1.000', '0.000')
    """
    return f"{min(1.0, max(0.0, value / deepest)):.3f}"


def divergence_samples() -> list[tuple[str, str]]:
    """Return the samples of a legend of divergences: the bits and the depth of each.

    >>> divergence_samples()[-1]
    ('1', '1.000')
    """
    return [(f"{bits:g}", divergence_depth(bits)) for bits in DIVERGENCES]
