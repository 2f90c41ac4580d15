"""The router's network: the probability that the small model's next token changes the path.

R2R, arXiv:2505.21600: last hidden state, largest logit values and the embedding of the proposed token go
through a residual network to one probability. Departures: the width and depth are chosen for the pair at
hand (the paper's are 1024 and 6, for a model of hidden size 1536); the proposed token is the likeliest
one, since a processor speaks before the token is drawn; logits are taken relative to the largest, so that
logits and log-probabilities mean the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from logitkit.errors import ParameterError
from logitkit.processors.cascade import head_files as heads
from logitkit.processors.cascade import head_training
from logitkit.processors.cascade.model_fingerprint import pair_fingerprint
from logitkit.processors.engine.log_probabilities import log_probabilities

KIND = "router head"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a router: of the small model's hidden state and embedding, and of the network."""

    hidden: int
    embedding: int
    top: int = 100
    width: int = 128
    blocks: int = 2


def features(hidden: Tensor, scores: Tensor, embed: Callable[[Tensor], Tensor], top: int) -> Tensor:
    """What the network looks at, fp32 ``[rows, hidden + embedding + top]``.

    Args:
        hidden: last hidden state of the small model, ``[rows, hidden]``.
        scores: its logits or log-probabilities, ``[rows, vocab]``; impossible tokens count as very unlikely.
        embed: its input embedding, ids -> ``[rows, embedding]``.
        top: how many of the largest logit values.
    """
    logp = log_probabilities(scores)
    values, tokens = logp.topk(min(top, logp.shape[-1]), dim=-1)
    values = nn.functional.pad((values - values[:, :1]).clamp_min(-50), (0, top - values.shape[1]), value=-50)
    return torch.cat([hidden.float(), embed(tokens[:, 0]).float(), values], dim=-1)


class Network(head_training.Standardised):
    """Residual network from features to one logit a row."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape.hidden + shape.embedding + shape.top)
        self.values = nn.Linear(shape.top, shape.embedding)
        self.enter = nn.Linear(shape.hidden + 2 * shape.embedding, shape.width)
        self.blocks = nn.ModuleList(_block(shape.width) for _ in range(shape.blocks))
        self.leave = nn.Sequential(nn.LayerNorm(shape.width), nn.Linear(shape.width, 1))
        self.top = shape.top

    def forward(self, features: Tensor) -> Tensor:
        """Logits of "routed", ``[rows]``."""
        normal = self.standardised(features)
        known, values = normal[:, : -self.top], normal[:, -self.top :]
        x = self.enter(torch.cat([known, self.values(values)], dim=-1))
        for block in self.blocks:
            x = x + block(x)
        logits: Tensor = self.leave(x)[:, 0]
        return logits


def _block(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(4 * width, width)
    )


class RouterHead:
    """A trained router for one pair of models.

    Attributes:
        threshold: routes where the probability is above it; chosen by `fit` for a target recall.
        pair: fingerprints of the models and tokenizer it was trained for.
        report: recall and rate at the threshold on held-out rows, and how training went.
    """

    def __init__(
        self, network: Network, shape: Shape, *, threshold: float, pair: dict[str, str], report: dict[str, Any]
    ) -> None:
        self.network, self.shape, self.threshold, self.pair, self.report = network, shape, threshold, pair, report

    @torch.no_grad()
    def __call__(self, rows: Tensor) -> Tensor:
        """The probability that each row of features changes the path, ``[rows]``."""
        self.network.to(rows.device)
        return self.network(rows).sigmoid()  # type: ignore[no-any-return]

    @classmethod
    def fit(
        cls,
        rows: Tensor,
        labels: Tensor,
        shape: Shape,
        *,
        small: Any,
        large: Any,
        tokenizer: Any,
        recall: float = 0.95,
        recall_factor: float = 1.0,
        held_out: float = 0.2,
        epochs: int = 50,
        patience: int = 10,
        rate: float = 1e-3,
        decay: float = 5e-4,
        batch: int = 1024,
        seed: int = 0,
        advance: Callable[[], None] = lambda: None,
    ) -> RouterHead:
        """Train on features (as `features` makes them) and labels, and choose the threshold on held-out rows.

        The positives weigh ``recall_factor`` x negatives / positives, as in the released code.

        Args:
            rows: ``[examples, hidden + embedding + top]``.
            labels: 1 where the small model's token changes the path, else 0, ``[examples]``.
            shape: sizes.
            small, large, tokenizer: the pair, whose fingerprint the head keeps.
            recall: share of the positives that the threshold must catch.
            held_out: share of the examples for early stopping and the threshold.
            epochs, patience, rate, decay, batch, seed, advance: of the training.

        Raises:
            ParameterError: no examples, NaN, one class only.
        """
        head_training.check_examples("RouterHead.fit", rows, labels)
        positives = int(labels.sum())
        if not 0 < positives < len(labels):
            raise ParameterError("RouterHead.fit", "labels", "of both kinds", f"{positives} of {len(labels)} positive")
        if not 0 < recall <= 1:
            raise ParameterError("RouterHead.fit", "recall", "a finite number > 0 and <= 1", recall)
        train, held = head_training.split(len(rows), held_out, seed)
        network = head_training.begun(lambda: Network(shape), rows[train], seed)
        weight = torch.tensor((len(labels) - positives) / positives * recall_factor)
        told = head_training.fit(
            network,
            rows,
            labels.float(),
            nn.BCEWithLogitsLoss(pos_weight=weight),
            train=train,
            held_out=held,
            epochs=epochs,
            patience=patience,
            rate=rate,
            decay=decay,
            batch=batch,
            seed=seed,
            advance=advance,
        )
        head = cls(network, shape, threshold=1.0, pair=pair_fingerprint(small, large, tokenizer), report={})
        judged = held if bool(labels[held].any()) else torch.arange(len(rows))
        head.threshold = threshold_for_recall(head(rows[judged]), labels[judged], recall)
        routed = head(rows[judged]) > head.threshold
        head.report = {
            "recall": float(routed[labels[judged].bool()].float().mean()),
            "rate": float(routed.float().mean()),
            "base_rate": positives / len(labels),
            "held_out": len(judged),
            "epochs": len(told.training),
            "best_epoch": told.best,
            "held_out_loss": told.held_out[told.best],
        }
        return head

    def save(self, folder: str | Path) -> None:
        """Write ``head.safetensors`` and ``head.json``."""
        facts = {"shape": asdict(self.shape), "threshold": self.threshold, "pair": self.pair, "report": self.report}
        heads.save(folder, KIND, self.network, facts)

    @classmethod
    def load(cls, folder: str | Path) -> RouterHead:
        """Read a head; runs no code from the files.

        Raises:
            FileFormatError: not a router head.
        """
        state, facts = heads.load(folder, KIND)
        shape = Shape(**facts["shape"])
        network = Network(shape)
        heads.into(network, state, KIND)
        return cls(network, shape, threshold=facts["threshold"], pair=facts["pair"], report=facts["report"])


def threshold_for_recall(scores: Tensor, labels: Tensor, recall: float) -> float:
    """The highest threshold on the grid .01, .02, ... .99 above which at least this share of positives lies.

    It routes least among those that reach the recall (the paper's choice); 0 when none does.

    Args:
        scores: ``[rows]``, 0 to 1; a row is routed when its score is above the threshold.
        labels: 1 or 0, ``[rows]``, at least one 1.
        recall: above 0 to 1.
    """
    positives = scores[labels.bool()]
    if not len(positives):
        raise ParameterError("threshold_for_recall", "labels", "with a positive among them", "none")
    grid = torch.linspace(0.01, 0.99, 99)
    caught = (positives[None] > grid[:, None].to(positives)).float().mean(-1)
    enough = (caught >= recall - 1e-9).nonzero()
    return round(float(grid[int(enough[-1])]), 2) if len(enough) else 0.0
