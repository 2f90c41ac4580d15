"""The contrast family: a second reading of the text, subtracted."""

from __future__ import annotations

from logitkit.registry.hookspecs import hookimpl
from logitkit.registry.spec import Spec

MODULE = "logitkit.processors.contrast.processors"


@hookimpl
def logitkit_specs() -> list[Spec]:
    """Offer the five contrastive methods."""
    return [
        Spec(
            name="uscd",
            family="contrast",
            summary="Where the model is unsure, contrast with the prompt stripped of its examples.",
            source="arXiv:2409.05923",
            target="logitkit.processors.contrast.selective:USCD",
            formula="where confidence(p) <= gate, over p >= head / vocab: log(p - rho q)  or  log p - rho log q",
            cost="one forward at steps where the gate fires; skipped steps are caught up in one chunk",
            failure="rho near 1 leaves little to choose from; prompts without examples are left as they are",
            example="uscd(gate=1.0, lame=['a lame prompt', 'another one'])",
        ),
        Spec(
            name="cfg",
            family="contrast",
            summary="Follow the prompt more: classifier-free guidance against no prompt or a negative one.",
            source="arXiv:2306.17806",
            target=f"{MODULE}:CFG",
            formula="log q + scale (log p - log q);  q: the prompt's last token alone, or the negative prompt",
            cost="one forward",
            failure="a large scale promotes junk: put min_p or top_p before it",
            example="cfg(scale=1.7, negative='a negative prompt')",
        ),
        Spec(
            name="cad",
            family="contrast",
            summary="Trust the context more than what the model remembers: contrast away a part of the prompt.",
            source="arXiv:2305.14739",
            target=f"{MODULE}:CAD",
            formula="(1 + alpha) log p(with context) - alpha log p(without)",
            cost="one forward",
            failure="a wrong context is trusted too",
            example="cad(alpha=0.6, context='prompt')",
        ),
        Spec(
            name="contrastive",
            family="contrast",
            summary="Prefer what a strong model knows and a weak one does not.",
            source="arXiv:2210.15097",
            target=f"{MODULE}:Contrastive",
            formula="log p_expert - beta log p_amateur,  where p_expert >= alpha max p_expert",
            needs=("amateur: a weaker model with the same tokenizer",),
            cost="one forward of the amateur",
            failure="an amateur close to the expert leaves noise",
            example="contrastive(amateur='other')",
        ),
        Spec(
            name="dexperts",
            family="contrast",
            summary="Add to a large model what tuning changed in a small one (DExperts, proxy tuning).",
            source="arXiv:2105.03023, arXiv:2401.08565",
            target=f"{MODULE}:DExperts",
            formula="log p_base + alpha (log p_expert - log p_antiexpert)",
            needs=("expert and antiexpert: small models with the same tokenizer",),
            cost="one forward of each small model",
            failure="without top_p before it, unlikely tokens can be carried up",
            example="dexperts(expert='other', antiexpert='third')",
        ),
    ]
