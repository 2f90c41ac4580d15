"""Contrastive decoding: combine the logits of two streams of one text.

Formulas over rows of logits: `uscd`, `cfg`, `cad`, `adacad`, `coiecd`, `contrastive`, `dexperts`, `dola`, and
`confidence`, the gate of `uscd`. `tilted` is the optimum of a reward under a divergence.
Logits processors: `USCD`, `CFG`, `MTI`, `CAD`, `Anchor`, `Contrastive`, `DExperts`, `DoLa`.
The chat with a goal restated: `with_reminder`.
Removal of examples from prompts: `strip_examples`, `strip_messages`, with the result `Stripped`.
"""

from __future__ import annotations

from logitkit.processors.contrast.anchoring import Anchor, with_reminder
from logitkit.processors.contrast.confidence_measures import Confidence, confidence
from logitkit.processors.contrast.context_aware import CAD, adacad, coiecd
from logitkit.processors.contrast.formulas import Form, cad, cfg, contrastive, dexperts, uscd
from logitkit.processors.contrast.lame_prompt import Stripped, strip_examples, strip_messages
from logitkit.processors.contrast.layer_contrast import DoLa, dola
from logitkit.processors.contrast.minimal_intervention import MTI
from logitkit.processors.contrast.processors import CFG, Contrastive, DExperts
from logitkit.processors.contrast.selective import USCD
from logitkit.processors.contrast.tilting import Tilt, tilted

__all__ = [
    "CAD",
    "CFG",
    "MTI",
    "USCD",
    "Anchor",
    "Confidence",
    "Contrastive",
    "DExperts",
    "DoLa",
    "Form",
    "Stripped",
    "Tilt",
    "adacad",
    "cad",
    "cfg",
    "coiecd",
    "confidence",
    "contrastive",
    "dexperts",
    "dola",
    "strip_examples",
    "strip_messages",
    "tilted",
    "uscd",
    "with_reminder",
]
