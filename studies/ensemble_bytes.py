"""The log-loss of a span under two models over bytes and under their byte ensembles, for `ensemble_pairs`.

Every model gives the distribution of the next byte after the text so far, and `ByteEnsemble` combines the two. A model
over bytes sums over all tokenizations of a span, which need not end with a token. `boundaries` says how much of the
difference from the model's own tokens comes from the two ends of the span, and how much from the normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from logitkit.processors.byte_level import ByteEnsemble, ByteModel
from logitkit.processors.byte_level.fusion import Fuse
from studies.ensemble_members import EnsembleMembers
from studies.scored_items import ScoredItem
from studies.tables import markdown_table

WEIGHTS = (0.3, 0.5, 0.6, 0.7)  # of the main model
MEANS: dict[str, tuple[Fuse, float]] = {f"bytes, mean, main {w:g}": ("mixture", w) for w in WEIGHTS}
PRODUCTS: dict[str, tuple[Fuse, float]] = {f"bytes, product, main {w:g}": ("product", w) for w in WEIGHTS}
SEQUENCE: dict[str, tuple[Fuse, float]] = {"bytes, sequence, main 0.5": ("sequence", 0.5)}
ENSEMBLES = MEANS | PRODUCTS | SEQUENCE


class ByteMethods:
    """The two models of a pair over bytes, and their ensembles.

    Args:
        members: the main model and one helper.
        tolerance: covers with a share of the probability below this are not read; 0 is exact.
    """

    def __init__(self, members: EnsembleMembers, tolerance: float) -> None:
        self.loaded = {name: members.loaded[name] for name in (members.main, *members.helpers)}
        self.labels = ["bytes, main alone", *(f"bytes, {name} alone" for name in members.helpers)]
        self.models = [
            ByteModel(model, tokenizer, tolerance=tolerance, bos=begin_token(tokenizer))
            for model, tokenizer in self.loaded.values()
        ]

    def answers(self, item: ScoredItem, ends: Sequence[int]) -> list[dict[str, Any]]:
        """Return the losses of the beginnings of a span, and what they are made of.

        Args:
            item: the text before the span, and the span.
            ends: number of bytes of each beginning, at most those of the span.

        Returns:
            For each beginning ``losses`` by label, in nats a byte; ``exact``, the log-probability of the beginning
            under each model without normalisation; ``start``, the log-probability of the text before the span as
            bytes minus that of its tokens; ``logp``, for each model the normalised log-probabilities of the bytes.
            The last three are in nats.
        """
        before, span = item.prompt.encode(), item.options[0].encode()
        prefixes = [before + span[:place] for place in range(len(span))]
        distributions = torch.stack([model.logp(prefixes) for model in self.models])  # [models, bytes, 257]
        true = torch.tensor(list(span))[:, None]
        alone = torch.cat([one.gather(-1, true).T for one in distributions]).double()  # [models, bytes]
        logp = dict(zip(self.labels, alone, strict=True))
        for label, (fuse, weight) in ENSEMBLES.items():
            logp[label] = fused(distributions, alone, weight, fuse).gather(-1, true)[:, 0].double()
        begun = [model.tree.logp(before) for model in self.models]
        tokens = [token_logp(*pair, item.prompt) for pair in self.loaded.values()]
        exact = [[model.tree.logp(before + span[:end]) for model in self.models] for end in ends]
        for model in self.models:
            model.release()
        return [
            {
                "losses": {label: -float(values[:end].mean()) for label, values in logp.items()},
                "exact": [both - first for both, first in zip(whole, begun, strict=True)],
                "start": [first - written for first, written in zip(begun, tokens, strict=True)],
                "logp": alone[:, :end].tolist(),
            }
            for end, whole in zip(ends, exact, strict=True)
        ]


def fused(distributions: Tensor, alone: Tensor, weight: float, fuse: Fuse) -> Tensor:
    """Return the next-byte log-probabilities of the ensemble of two models before every byte of a span.

    Args:
        distributions: log-probabilities in nats, ``[2, bytes, 257]``, the main model first.
        alone: log-probabilities of the bytes of the span, ``[2, bytes]``.
        weight: weight of the main model.
        fuse: see `ByteEnsemble`.

    Returns:
        Log-probabilities in nats, ``[bytes, 257]``.
    """
    written = alone.cumsum(-1) - alone  # of the bytes before each byte
    ensemble = ByteEnsemble(
        weights=[weight, 1 - weight],
        fuse=fuse,
        helpers=[lambda ids: distributions[1]],
        evidence=lambda ids: written,
    )
    return ensemble(torch.zeros(distributions.shape[1], 1, dtype=torch.long), distributions[0])


def begin_token(tokenizer: Any) -> int | None:
    """Return the begin token that a tokenizer puts before a text; None if it puts none, whether it has one or not.

    The models over tokens read texts as their tokenizers write them, so the models over bytes must too.
    """
    begin = tokenizer.bos_token_id
    return begin if begin is not None and tokenizer("a")["input_ids"][:1] == [begin] else None


@torch.no_grad()
def token_logp(model: Any, tokenizer: Any, text: str) -> float:
    """Return the log-probability in nats of the tokens of a text after the first one."""
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    logp = model(ids).logits[0, :-1].float().log_softmax(-1)
    return float(logp.gather(-1, ids[0, 1:, None]).double().sum())


def chosen_records(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a record over bytes for each item and kind: with a tolerance, or with 0 where that made a byte impossible.

    A tolerance leaves tokenizations out, and the next byte can be one that only those go on with.
    """
    exact = {(r["item"], r["kind"]): r for r in records if r.get("tolerance") == 0}
    return [
        exact[record["item"], record["kind"]] if None in record["losses"].values() else record
        for record in records
        if record.get("tolerance")
    ]


def boundaries(records: Sequence[dict[str, Any]]) -> str:
    """Return a table of the mean losses of a model over tokens and over bytes, and of what makes the difference.

    The loss over bytes is the loss over tokens, minus what the end of the span gives, plus what its start takes, minus
    what the normalisation gives.
    """
    tokens = {(record["item"], record["kind"]): record["losses"] for record in records if "tolerance" not in record}
    rows = []
    read = chosen_records(records)
    for kind in dict.fromkeys(record["kind"] for record in read):
        ours = [record for record in read if record["kind"] == kind]
        for place, label in enumerate(list(ours[0]["losses"])[:2]):
            causes = np.array([_causes(record, tokens[record["item"], kind], label, place) for record in ours])
            means = [f"{mean:.4f}" for mean in causes.mean(0)]
            rows.append([kind, str(len(ours)), label.removeprefix("bytes, "), *means])
    headings = ["text", "all items", "model", "over tokens", "gain at the end", "cost at the start"]
    return markdown_table([*headings, "gain of normalisation", "over bytes"], rows)


def _causes(record: dict[str, Any], tokens: dict[str, float], label: str, place: int) -> list[float]:
    """Return the losses of a model over tokens and over bytes, and between them what makes the difference."""
    count = len(record["logp"][place])
    over_tokens, over_bytes = tokens[label.removeprefix("bytes, ")], record["losses"][label]
    exact, start = -record["exact"][place] / count, record["start"][place] / count
    return [over_tokens, over_tokens - exact + start, start, exact - over_bytes, over_bytes]


def errors_of_tolerance(records: Sequence[dict[str, Any]]) -> str:
    """Return a table of the largest difference of a loss between the tolerance and 0, on the items read with both.

    Items on which the tolerance made a byte impossible are counted instead.
    """
    losses = {(r["item"], r["kind"]): r["losses"] for r in records if r.get("tolerance")}
    exact = [record for record in records if record.get("tolerance") == 0]
    rows = []
    for kind in dict.fromkeys(record["kind"] for record in exact):
        pairs = [(losses[r["item"], kind], r["losses"]) for r in exact if r["kind"] == kind]
        finite = [pair for pair in pairs if None not in pair[0].values()]
        worst = max(abs(loss - pruned[label]) for pruned, whole in finite for label, loss in whole.items())
        impossible = sum(None in each.values() for (_, of), each in losses.items() if of == kind)
        rows.append([kind, str(len(finite)), f"{worst:.4f}", f"{impossible} of {sum(of == kind for _, of in losses)}"])
    return markdown_table(["text", "items", "largest difference, nats a byte", "items with an impossible byte"], rows)
