"""Specs of the contrastive methods: a second distribution is subtracted from that of the generating model."""

from __future__ import annotations

from logitkit.plugins.ensemble import EDIT_DISTANCE
from logitkit.registry.hookspecs import hookimpl
from logitkit.registry.spec import Spec

MODULE = "logitkit.processors.contrast.processors"


SPECS = [
    Spec(
        name="uscd",
        family="contrast",
        summary="Contrast with the prompt without its examples, at steps where the model is uncertain.",
        source="arXiv:2409.05923",
        target="logitkit.processors.contrast.selective:USCD",
        revision=3,
        ungated={"gate": 1.0},
        formula="log(p - rho q) or log p - rho log q,  where confidence(p) <= gate, over tokens p >= head / vocab;"
        "\np, q: with and without the examples",
        extra_forwards="gated",
        cost="one forward where the gate is open, which also reads the positions skipped before",
        failure="a rho near 1 leaves few tokens possible; a prompt without examples is not contrasted",
        example="uscd(gate=1.0, lame=['a lame prompt', 'another one'])",
    ),
    Spec(
        name="cfg",
        family="contrast",
        summary="Strengthen the influence of the prompt by classifier-free guidance, or avoid a negative prompt.",
        source="arXiv:2306.17806",
        target=f"{MODULE}:CFG",
        revision=2,
        formula="log q + scale (log p - log q);  q: after the prompt's last token alone, or the negative prompt;"
        "\nforward_kl: p / (lambda - r),  js: p / (2 exp(lambda - r) - 1)  with r = (scale - 1) log(p / q)",
        extra_forwards="every_step",
        failure="a large scale raises unlikely tokens; put min_p or top_p before it",
        example="cfg(scale=1.7, negative='a negative prompt')",
    ),
    Spec(
        name="mti",
        family="contrast",
        summary="At uncertain steps, guide away from what the model says after a short negative text.",
        source="arXiv:2510.13940",
        target="logitkit.processors.contrast.minimal_intervention:MTI",
        formula="log q + scale (log p - log q)  where the entropy of p is above threshold;  q: after the row and the "
        "negative text",
        extra_forwards="gated",
        cost="one forward of the negative text at uncertain steps",
        failure="a large scale raises unlikely tokens; put min_p or top_p behind it",
        example="mti(scale=1.7, threshold=4.5)",
    ),
    Spec(
        name="cad",
        family="contrast",
        summary="Strengthen the influence of a passage in the prompt against what the model has memorised.",
        source="arXiv:2305.14739, arXiv:2409.07394, arXiv:2402.11893",
        target="logitkit.processors.contrast.context_aware:CAD",
        revision=2,
        formula="(1 + alpha) log p - alpha log q;  p, q: with and without the passage;"
        "\nadacad: alpha JS(p, q) in the place of alpha;  coiecd: c log p + (1 - c) log q + alpha (log p - log q)",
        extra_forwards="every_step",
        failure="a wrong passage gains influence as well",
        example="cad(alpha=0.6, context='prompt')",
    ),
    Spec(
        name="anchor",
        family="contrast",
        summary="Where the model drifts from a goal, decode as if the goal had just been restated.",
        source="arXiv:2510.07777",
        target="logitkit.processors.contrast.anchoring:Anchor",
        formula="log p + strength (log q - log p)  where KL(p, q) is above threshold;  q: with the goal restated",
        extra_forwards="every_step",
        failure="a reminder that does not fit a turn is followed all the same; raise the threshold",
        example="anchor('a reminder', threshold=0.01, strength=0.8)",
    ),
    Spec(
        name="contrastive",
        family="contrast",
        summary="Prefer tokens that the model finds likelier than a weaker model does.",
        source="arXiv:2210.15097",
        target=f"{MODULE}:Contrastive",
        revision=3,
        formula="log p - beta log p_amateur,  over tokens p >= alpha max p;  the logits of the amateur are divided by "
        "temperature",
        needs_models=("amateur",),
        needs_packages=EDIT_DISTANCE,
        needs=(
            "amateur: a weaker model with the same tokenizer, or with align",
            "with align='bytes': a ByteModel as the generating model",
        ),
        extra_forwards="every_step",
        cost="one forward of the amateur",
        failure="two models of similar quality differ by noise alone, which the contrast then amplifies",
        example="contrastive(amateur='other')",
        example_resources={"other": "model"},
    ),
    Spec(
        name="dola",
        family="contrast",
        summary="Prefer tokens that the whole model finds likelier than one of its earlier layers does.",
        source="arXiv:2309.03883",
        target="logitkit.processors.contrast.layer_contrast:DoLa",
        formula="log p - log q,  over tokens p >= alpha max p;  q: the earlier layer that differs most from p",
        extra_forwards="gated",
        cost="one where rows were not read by the generating model's last forward, else none",
        failure="repeats itself; put repetition_penalty(1.2) behind it",
        example="dola(layers=[0, 1])",
    ),
    Spec(
        name="dexperts",
        family="contrast",
        summary="Add to a large model the change that tuning made to a small one (DExperts, proxy tuning).",
        source="arXiv:2105.03023, arXiv:2401.08565",
        target=f"{MODULE}:DExperts",
        revision=3,
        formula="log p + alpha (log p_expert - log p_antiexpert);  divergence as in cfg",
        needs_models=("expert", "antiexpert"),
        needs_packages=EDIT_DISTANCE,
        needs=(
            "expert, antiexpert: small models with the same tokenizer, or with align, tuned and not tuned",
            "with align='bytes': a ByteModel as the generating model",
        ),
        extra_forwards="every_step",
        cost="one forward of each small model",
        failure="unlikely tokens can become likely; put top_p before it",
        example="dexperts(expert='other', antiexpert='third')",
        example_resources={"other": "model", "third": "model"},
    ),
]


@hookimpl
def logitkit_specs() -> list[Spec]:
    """Return the Specs of the family."""
    return SPECS
