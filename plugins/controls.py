"""Specs of controllers, constraints, budgets and attributes; the plugin `samplers` offers them."""

from __future__ import annotations

from logitkit.registry.required_package import RequiredPackage
from logitkit.registry.spec import Spec

CONTROLLERS = "logitkit.processors.samplers.controllers"
BUDGETS = "logitkit.processors.samplers.budgets"

CONTROLLER_SPECS = [
    Spec(
        name="mirostat",
        family="samplers",
        summary="Keep the mean surprise of the chosen tokens near a target (version 2).",
        source="arXiv:2007.14966",
        target=f"{CONTROLLERS}:Mirostat",
        formula="keep -log2 p <= mu;  mu: 2 tau, then mu - eta (s - tau) after each token"
        "\ns: surprise of the token among the kept ones, in bits",
        failure="reads texts again under assisted decoding, where draft tokens are rejected",
        warper=True,
        keeps_best=True,
        truncates=True,
        last=True,
        example="mirostat(tau=3.0, eta=0.5)",
    ),
    Spec(
        name="adaptive_p",
        family="samplers",
        summary="Prefer tokens of a target probability, and correct for those already chosen.",
        source="llama.cpp",
        target=f"{CONTROLLERS}:AdaptiveP",
        formula="5 - 10 d^2 / (1 + d),  d = |p - a| / 0.3,  a = 2 target - (decaying mean of the chosen p)",
        failure="gives improbable tokens a share, so put min_p or another truncation before it",
        warper=True,
        last=True,
        example="adaptive_p(target=0.4, decay=0.8)",
    ),
]

CONSTRAINT_SPECS = [
    Spec(
        name="ban_phrases",
        family="samplers",
        summary="Let no output contain a phrase, whichever tokens spell it.",
        source="text-generation-webui, KoboldCpp (banned strings)",
        target="logitkit.processors.samplers.ban_phrases:BanPhrases",
        formula="-inf for tokens whose bytes complete a phrase in the text of prompt and continuation",
        failure="tokens are masked one by one, so a text may begin a phrase and then avoid its last token",
        forbids=True,
        example="ban_phrases(phrases=['the', 'prompt'], fold_case=True)",
    ),
    Spec(
        name="choices",
        family="samplers",
        summary="Let the continuation be one of given texts.",
        source="logitkit",
        target="logitkit.processors.samplers.choices:Choices",
        formula="-inf for tokens that continue no option; behind a complete option an end token is allowed",
        failure="tokens are masked one by one, so an option may be chosen for its first token; logitkit.score compares "
        "whole options",
        forbids=True,
        example="choices(options=['yes', 'no', 'not now'])",
    ),
    Spec(
        name="grammar",
        family="samplers",
        summary="Let the continuation follow a JSON Schema, a regular expression or a Lark grammar.",
        source="llguidance",
        target="logitkit.processors.samplers.grammar:Grammar",
        formula="-inf for tokens after which the text can no longer become one of the grammar",
        needs=("the extra grammar: pip install 'logitkit[grammar]'",),
        needs_packages=(RequiredPackage(name="llguidance", extra="grammar"),),
        failure="a text that reaches max_new_tokens is not complete; tokens are masked one by one",
        forbids=True,
        example="grammar(regex='(ab|ba|the)+')",
    ),
    Spec(
        name="thinking_budget",
        family="samplers",
        summary="Close a block of thinking after a number of tokens.",
        source="logitkit",
        target=f"{BUDGETS}:ThinkingBudget",
        formula="between open and close, once the tokens are spent: the tokens of closing_text + close, forced",
        failure="the model did not choose the end of its thought; a closing_text that says so helps",
        forbids=True,
        example="thinking_budget(open='p', close='gn', tokens=3)",
    ),
]

TARGET_SPECS = [
    Spec(
        name="length_target",
        family="samplers",
        summary="Make ending less probable before a number of tokens, and more probable after it.",
        source="logitkit",
        target=f"{BUDGETS}:LengthTarget",
        formula="log-odds of the end tokens + strength (t - tokens),  t: generated tokens",
        failure="a strong pull ends texts in the middle of a sentence",
        example="length_target(tokens=4, strength=0.7)",
    ),
]

ATTRIBUTE_SPECS = [
    Spec(
        name="attribute",
        family="samplers",
        summary="Prefer tokens that make an attribute of the text more probable, such as its length or a label.",
        source="arXiv:2408.16241",
        target="logitkit.processors.samplers.attribute:AttributeStep",
        formula="log p(v) + strength (log P(a | x v) - log P(a | x)) for the top likeliest tokens v, else -inf",
        needs_files=("scorer",),
        needs=(
            "scorer: a mapping such as {'length': 20}, or a function, sequence classifier or trained head "
            "passed to bind",
        ),
        cost="none; a classifier reads the top continuations of every row",
        failure="one step ahead is all that it sees: where none of the top tokens helps, it changes little",
        last_under_beams=True,
        example="attribute({'contains': ['the'], 'length': 6, 'varied': 2}, strength=0.7, top=40)",
    ),
]

SPECS = [*CONTROLLER_SPECS, *CONSTRAINT_SPECS, *TARGET_SPECS, *ATTRIBUTE_SPECS]
