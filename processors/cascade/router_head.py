"""The router head: a network that predicts whether the small model's next token is divergent.

A token is divergent when it leads the large model to a different result; `logitkit.processors.cascade.labelling`
makes such labels. Source: R2R, arXiv:2505.21600. The last hidden state, the largest logits and the embedding of the
proposed token go through a residual network to one probability.

Departures: width and depth are chosen for each pair of models (the paper has 1024 and 6 for hidden size 1536). The
proposed token is the most likely one, because a processor runs before the token is sampled. Logits are taken
relative to the largest, so that logits and log-probabilities give the same features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from logitkit.errors import FileFormatError, ParameterError
from logitkit.processors.cascade.model_fingerprint import ModelPair, PairFingerprint
from logitkit.processors.engine import head_training
from logitkit.processors.engine.head_files import build_network, load_head, save_head
from logitkit.processors.engine.head_training import Split, Standardised, TrainingSettings, residual_block
from logitkit.processors.engine.log_probabilities import log_probabilities

KIND = "router head"
LOWEST_LOGIT = -50.0  # replaces -inf; relative to the largest logit


@dataclass(frozen=True, kw_only=True)
class RouterHeadConfig:
    """Sizes of a router head.

    Attributes:
        hidden_size, embedding_size: of the small model.
        top_logits: number of largest logits among the features.
        width, blocks: of the residual network.

    >>> RouterHeadConfig(hidden_size=32, embedding_size=32).width
    128
    """

    hidden_size: int
    embedding_size: int
    top_logits: int = 100
    width: int = 128
    blocks: int = 2


def router_features(hidden: Tensor, scores: Tensor, embed: Callable[[Tensor], Tensor], top_logits: int) -> Tensor:
    """Return the features of a router head.

    Args:
        hidden: last hidden state of the small model, ``[rows, hidden_size]``.
        scores: its logits or log-probabilities, ``[rows, vocab]``; ``-inf`` counts as 50 nats below the largest.
        embed: its input embedding, ids ``[rows]`` -> ``[rows, embedding_size]``.
        top_logits: number of largest logits to include.

    Returns:
        fp32 ``[rows, hidden_size + embedding_size + top_logits]``.

    >>> scores = torch.tensor([[1.0, 4.0, 3.0]])
    >>> router_features(torch.tensor([[7.0]]), scores, lambda ids: ids[:, None].float(), top_logits=2)
    tensor([[ 7.,  1.,  0., -1.]])
    """
    logp = log_probabilities(scores)
    values, tokens = logp.topk(min(top_logits, logp.shape[-1]), dim=-1)
    values = (values - values[:, :1]).clamp_min(LOWEST_LOGIT)
    values = nn.functional.pad(values, (0, top_logits - values.shape[1]), value=LOWEST_LOGIT)
    return torch.cat([hidden.float(), embed(tokens[:, 0]).float(), values], dim=-1)


class RouterNetwork(Standardised):
    """Residual network from features to one logit a row.

    >>> config = RouterHeadConfig(hidden_size=2, embedding_size=2, top_logits=1, width=4, blocks=1)
    >>> RouterNetwork(config)(torch.zeros(3, 5)).shape
    torch.Size([3])
    """

    def __init__(self, config: RouterHeadConfig) -> None:
        super().__init__(config.hidden_size + config.embedding_size + config.top_logits)
        self.values = nn.Linear(config.top_logits, config.embedding_size)
        self.enter = nn.Linear(config.hidden_size + 2 * config.embedding_size, config.width)
        self.blocks = nn.ModuleList(residual_block(config.width) for _ in range(config.blocks))
        self.leave = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, 1))
        self.top_logits = config.top_logits

    def forward(self, features: Tensor) -> Tensor:
        """Return the logit of "divergent" for each row of features, ``[rows]``."""
        features = self.standardised(features)
        states, values = features[:, : -self.top_logits], features[:, -self.top_logits :]
        x = self.enter(torch.cat([states, self.values(values)], dim=-1))
        for block in self.blocks:
            x = x + block(x)
        logits: Tensor = self.leave(x)[:, 0]
        return logits


class RouterHead:
    """A trained router head for one pair of models.

    Args:
        network: the network.
        config: its sizes.
        threshold: rows with a higher probability are routed; `fit` chooses it for a target recall.
        pair: fingerprints of the models and the tokenizer that the head was trained for.
        report: recall and routing rate at the threshold on held-out rows, and the course of training.

    >>> config = RouterHeadConfig(hidden_size=2, embedding_size=2, top_logits=1, width=4, blocks=1)
    >>> pair = PairFingerprint("small", "large", "tokenizer")
    >>> head = RouterHead(RouterNetwork(config).eval(), config, threshold=0.5, pair=pair, report={})
    >>> head(torch.zeros(3, 5)).shape
    torch.Size([3])
    """

    def __init__(
        self,
        network: RouterNetwork,
        config: RouterHeadConfig,
        *,
        threshold: float,
        pair: PairFingerprint,
        report: dict[str, Any],
    ) -> None:
        self.network, self.config, self.threshold, self.pair, self.report = network, config, threshold, pair, report

    @torch.no_grad()
    def __call__(self, features: Tensor) -> Tensor:
        """Return the probability that each row is divergent, ``[rows]``.

        Args:
            features: as `router_features` returns them, ``[rows, features]``.
        """
        self.network.to(features.device)
        return self.network(features).sigmoid()  # type: ignore[no-any-return]

    # Over 40 lines: the docstring documents eight parameters.
    @classmethod
    def fit(
        cls,
        features: Tensor,
        labels: Tensor,
        config: RouterHeadConfig,
        *,
        pair: ModelPair,
        recall: float = 0.95,
        recall_factor: float = 1.0,
        settings: TrainingSettings | None = None,
        advance: Callable[[], None] = lambda: None,
    ) -> RouterHead:
        """Train a head, and choose its threshold on held-out rows.

        Positive examples have weight ``recall_factor`` x negatives / positives, as in the released code.

        Args:
            features: as `router_features` returns them, ``[examples, features]``.
            labels: 1 for divergent tokens, else 0, ``[examples]``.
            config: sizes of the head.
            pair: the models and tokenizer whose fingerprint the head stores.
            recall: share of the divergent tokens that the threshold must route, above 0 to 1.
            recall_factor: factor of the weight of positive examples.
            settings: of the training.
            advance: called after each epoch.

        Raises:
            ParameterError: no examples, values that are not finite, labels of one class, or ``recall`` out of range.
        """
        head_training.check_examples("RouterHead.fit", features, labels)
        positives = int(labels.sum())
        if not 0 < positives < len(labels):
            raise ParameterError("RouterHead.fit", "labels", "of two classes", f"{positives} of {len(labels)} positive")
        if not 0 < recall <= 1:
            raise ParameterError("RouterHead.fit", "recall", "a finite number > 0 and <= 1", recall)
        settings = settings or TrainingSettings()
        split = head_training.split_rows(len(features), settings)
        network = head_training.initialised(lambda: RouterNetwork(config), features[split.train], settings.seed)
        loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor((len(labels) - positives) / positives * recall_factor))
        history = head_training.train(
            network, features, labels.float(), loss, split=split, settings=settings, advance=advance
        )
        head = cls(network, config, threshold=1.0, pair=pair.fingerprint(), report={})
        head._choose_threshold(features, labels, split, recall)
        head.report |= {"base_rate": positives / len(labels), "epochs": len(history.training)}
        head.report |= {"best_epoch": history.best, "held_out_loss": history.held_out[history.best]}
        return head

    def _choose_threshold(self, features: Tensor, labels: Tensor, split: Split, recall: float) -> None:
        """Set the threshold for a recall on held-out rows, on all rows where none of those is divergent."""
        rows = split.held_out if bool(labels[split.held_out].any()) else torch.arange(len(features))
        probability, divergent = self(features[rows]), labels[rows].bool()
        self.threshold = threshold_for_recall(probability, divergent, recall)
        routed = (probability > self.threshold).float()
        self.report = {"recall": float(routed[divergent].mean()), "rate": float(routed.mean()), "held_out": len(rows)}

    def save(self, folder: str | Path) -> None:
        """Write ``head.safetensors`` and ``head.json`` into a folder."""
        metadata = {"config": asdict(self.config), "threshold": self.threshold, "report": self.report}
        save_head(folder, KIND, self.network, metadata | {"pair": self.pair._asdict()})

    @classmethod
    def load(cls, folder: str | Path) -> RouterHead:
        """Read a head from a folder; no code from the files runs.

        Raises:
            FileFormatError: the folder holds no router head, or a damaged one.
        """
        state, metadata = load_head(folder, KIND)
        config, network = build_network(_network, metadata, state, KIND)
        try:
            pair, threshold = PairFingerprint(**metadata["pair"]), float(metadata["threshold"])
            return cls(network, config, threshold=threshold, pair=pair, report=dict(metadata["report"]))
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(
                f"{KIND}: {folder} must hold threshold, pair and report, got {error!r}; train it again"
            ) from error


def _network(content: Mapping[str, Any]) -> tuple[RouterHeadConfig, RouterNetwork]:
    """Return the configuration and the untrained network of a file."""
    config = RouterHeadConfig(**content)
    return config, RouterNetwork(config)


def threshold_for_recall(scores: Tensor, labels: Tensor, recall: float) -> float:
    """Return the highest threshold that routes at least a given share of the positives.

    Candidates are .01, .02, ... .99, as in the paper. The highest candidate routes the fewest rows.

    Args:
        scores: ``[rows]``, 0 to 1; a row is routed when its score exceeds the threshold.
        labels: 1 or 0, ``[rows]``, at least one 1.
        recall: share of the positives to route, above 0 to 1.

    Returns:
        The threshold; 0 when no candidate reaches the recall.

    Raises:
        ParameterError: no label is positive.

    >>> threshold_for_recall(torch.tensor([0.205, 0.805, 0.9]), torch.tensor([1, 1, 0]), 0.5)
    0.8
    """
    positives = scores[labels.bool()]
    if not len(positives):
        raise ParameterError("threshold_for_recall", "labels", "such that one or more are positive", "none")
    candidates = torch.linspace(0.01, 0.99, 99)
    routed = (positives[None] > candidates[:, None].to(positives)).float().mean(-1)  # [candidates]
    sufficient = (routed >= recall - 1e-9).nonzero()
    return round(float(candidates[int(sufficient[-1])]), 2) if len(sufficient) else 0.0
