"""Specs of the searches over the law of a chain."""

from __future__ import annotations

from logitkit.registry.hookspecs import hookimpl
from logitkit.registry.spec import Spec

PACKAGE = "logitkit.processors.searches"

SPECS = [
    Spec(
        name="smc",
        kind="search",
        family="searches",
        summary="Sample whole texts from a target distribution with weighted particles (sequential Monte Carlo).",
        source="arXiv:2510.14901, arXiv:2602.10273, arXiv:2603.05432, arXiv:2504.05410",
        target=f"{PACKAGE}.smc:SMC",
        revision=2,
        needs_models=("models",),
        needs_files=("log_weight", "predicate"),
        formula="q(v) ~ gamma(x v),  log w += log sum_v gamma(x v) - log gamma(x);  power: gamma(x) = p(x)^alpha",
        needs=(
            "models: other models with the tokenizer of the generating model (targets product, min, power_mean)",
            "target 'constraint': a constraint step before smc, such as grammar or choices, or predicate, a function "
            "of rows of token ids that says which are viable",
            "log_weight: a function of rows of token ids, passed to bind under its name",
        ),
        extra_forwards="rows",
        cost="a row for each particle in place of one; a forward of each of the models",
        failure="few particles for a sharp target: the effective sample size in the trace falls to 1; raise particles",
        example="smc(particles=3)",
    ),
    Spec(
        name="goose",
        kind="search",
        family="searches",
        summary="Write the tokens of plain decoding with fewer forwards, by trees of drafts without a draft model.",
        source="arXiv:2604.02047",
        target=f"{PACKAGE}.goose:Goose",
        formula="x ~ p(. | path) at each node of a tree of drafts; where x is a child, go on there, else stop",
        needs=("a decoder-only model whose attention takes a mask of four dimensions",),
        extra_forwards="rows",
        cost="budget tokens in each forward in place of one; several new tokens a forward",
        failure="where the text neither repeats itself nor is predictable, and on a machine on which a forward of "
        "budget tokens takes much longer than one of one token",
        example="goose(budget=8)",
    ),
    Spec(
        name="speculate",
        kind="search",
        family="searches",
        summary="Write as without it, with fewer forwards of the other models of the chain, which check drafts.",
        source="arXiv:2211.17192, arXiv:2405.19261",
        target=f"{PACKAGE}.speculate:Speculate",
        formula="v ~ q, the law without the steps that name other models; kept with probability min(1, p(v) / q(v)), "
        "else v ~ max(0, p - q) normalised; p: the law of the chain",
        needs=("a step before it that names another model, such as cascade, ensemble, core, dexperts or contrastive",),
        extra_forwards="gated",
        cost="a forward of the generating model for each draft; one of each other model for all drafts of a round",
        failure="where the steps change most tokens, few drafts are kept; in large batches, whose rows go on together "
        "by the fewest kept drafts",
        example="speculate(draft_length=3)",
    ),
    Spec(
        name="rewind",
        kind="search",
        family="searches",
        summary="Ban phrases by going back to where they began, so that their beginnings are written elsewhere.",
        source="sam-paech/antislop-sampler",
        target=f"{PACKAGE}.rewind:Rewind",
        revision=2,
        formula="a token in which a banned phrase began is forbidden behind its prefix, and another is drawn there",
        needs=("a fast tokenizer",),
        extra_forwards="gated",
        cost="the tokens that are taken back are written again; going back itself needs no forward",
        failure="where likely tokens begin a phrase, much text is written twice, and unlikely words replace the likely",
        example="rewind(phrases=['e ', 'ab'])",
    ),
    Spec(
        name="beams",
        kind="search",
        family="searches",
        summary="Look for the likeliest texts with beams, in groups that avoid each other's tokens.",
        source="arXiv:1610.02424",
        target=f"{PACKAGE}.beams:Beams",
        revision=3,
        formula="the best by sum_t (log p(v_t) - diversity n_t),  n_t: earlier groups that took v_t at step t",
        extra_forwards="rows",
        cost="width rows in place of one",
        failure="the likeliest text is often short, empty or repetitive; an attribute before it helps",
        example="beams(width=4, groups=2, diversity=1.0)",
    ),
    Spec(
        name="adadec",
        kind="search",
        family="searches",
        summary="Where the model is unsure, take the token with the likeliest continuation, by looking ahead (AdaDec).",
        source="arXiv:2506.08980",
        target=f"{PACKAGE}.adadec:AdaDec",
        revision=2,
        needs_files=("threshold",),
        formula="where H(p) >= threshold: arg max over the top likeliest v of (log p(v) + sum of log p of the greedy "
        "tokens behind v) / (number of these tokens + 1)",
        needs=("threshold: nats, or the file that `logitkit train-adadec` wrote",),
        extra_forwards="gated",
        cost="depth forwards of top rows at each token with an entropy above the threshold",
        failure="a threshold that was fitted for another model; where the likeliest continuation is the dull one",
        example="adadec(threshold=1.5, top=3, depth=5)",
    ),
    Spec(
        name="contrastive_search",
        kind="search",
        family="searches",
        summary="Take likely tokens whose hidden states are unlike those of the text so far.",
        source="arXiv:2202.06417",
        target=f"{PACKAGE}.contrastive_search:ContrastiveSearch",
        formula="arg max over the top likeliest v of (1 - alpha) p(v) - alpha max_j cos(h_v, h_j)",
        needs=("a decoder-only model",),
        extra_forwards="rows",
        cost="top rows in place of one",
        failure="where the hidden states of all texts point the same way, the likeness says little; raise alpha",
        example="contrastive_search(alpha=0.6, top=3)",
    ),
]


@hookimpl
def logitkit_specs() -> list[Spec]:
    """Return the searches."""
    return SPECS
