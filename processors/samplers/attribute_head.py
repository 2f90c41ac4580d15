"""A head that predicts an attribute of the whole text from the hidden states of the generating model.

The head reads the last hidden state after a text and the embedding of the token that may follow, so the candidates of a
step need no forward of their own. It is trained on labelled texts: each token of a text has the label of its text, as
in FUDGE (arXiv:2104.05218, section 3.1). `attribute_examples` captures the states of the texts.

Departures from the source: the states are those of the generating model, where FUDGE trains a network of its own on
the tokens; and the token that follows enters by its input embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from logitkit.errors import FileFormatError, ParameterError
from logitkit.processors.engine import head_training
from logitkit.processors.engine.head_files import build_network, load_head, save_head
from logitkit.processors.engine.head_training import Split, Standardised, TrainingSettings, residual_block
from logitkit.processors.engine.weights_fingerprint import model_fingerprint
from logitkit.processors.samplers.attributes import precise
from logitkit.processors.tokens.vocabulary import fingerprint

KIND = "attribute head"


@dataclass(frozen=True, kw_only=True)
class AttributeHeadConfig:
    """Sizes of an attribute head.

    Attributes:
        hidden_size, embedding_size: of the generating model.
        width, blocks: of the residual network.

    >>> AttributeHeadConfig(hidden_size=32, embedding_size=32).width
    64
    """

    hidden_size: int
    embedding_size: int
    width: int = 64
    blocks: int = 1


class ModelFingerprint(NamedTuple):
    """Fingerprints of a model and its tokenizer, as hex digits.

    >>> ModelFingerprint(model="a1", tokenizer="b2").model
    'a1'
    """

    model: str
    tokenizer: str

    @classmethod
    def of(cls, model: Any, tokenizer: Any) -> ModelFingerprint:
        """Return the fingerprints of a model and its tokenizer."""
        return cls(model_fingerprint(model), fingerprint(tokenizer))


class AttributeExamples(NamedTuple):
    """Places of labelled texts.

    Attributes:
        features: hidden state before a token and embedding of the token, ``[places, features]``.
        labels: the label of the text, 0 to 1, ``[places]``.
        texts: number of the text, ``[places]``; the places of a text are next to each other.

    >>> AttributeExamples(torch.zeros(2, 4), torch.ones(2), torch.tensor([0, 0])).labels
    tensor([1., 1.])
    """

    features: Tensor
    labels: Tensor
    texts: Tensor


class AttributeNetwork(Standardised):
    """Residual network from hidden state and embedding to the logit of the attribute.

    >>> config = AttributeHeadConfig(hidden_size=2, embedding_size=2, width=4, blocks=1)
    >>> AttributeNetwork(config)(torch.zeros(3, 4)).shape
    torch.Size([3])
    """

    def __init__(self, config: AttributeHeadConfig) -> None:
        size = config.hidden_size + config.embedding_size
        super().__init__(size)
        self.enter = nn.Linear(size, config.width)
        self.blocks = nn.ModuleList(residual_block(config.width) for _ in range(config.blocks))
        self.leave = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logit of the attribute for features, ``[..., features] -> [...]``."""
        x = self.enter(self.standardised(features))
        for block in self.blocks:
            x = x + block(x)
        logits: Tensor = self.leave(x)[..., 0]
        return logits


class AttributeHead:
    """A trained attribute head for one model.

    Args:
        network: the network.
        config: its sizes.
        base_rate: share of the training texts that have the attribute, above 0 and below 1.
        trained_for: fingerprints of the model and tokenizer that the head was trained for.
        report: losses and accuracy on held-out texts, and the course of training.

    >>> config = AttributeHeadConfig(hidden_size=2, embedding_size=2, width=4)
    >>> trained_for = ModelFingerprint("a1", "b2")
    >>> head = AttributeHead(AttributeNetwork(config).eval(), config, base_rate=0.5, trained_for=trained_for, report={})
    >>> bool((head(torch.zeros(3, 4)) < 0).all())  # log-probabilities
    True
    """

    def __init__(
        self,
        network: AttributeNetwork,
        config: AttributeHeadConfig,
        *,
        base_rate: float,
        trained_for: ModelFingerprint,
        report: dict[str, Any],
    ) -> None:
        self.network, self.config, self.base_rate = network, config, base_rate
        self.trained_for, self.report = trained_for, report

    @torch.no_grad()
    def __call__(self, features: Tensor) -> Tensor:
        """Return ``log P(attribute)`` in nats, float64, ``[..., features] -> [...]``."""
        self.network.to(features.device)
        return nn.functional.logsigmoid(self.network(features.float()).to(precise(features.device)))

    @classmethod
    def fit(
        cls,
        examples: AttributeExamples,
        config: AttributeHeadConfig,
        *,
        trained_for: ModelFingerprint,
        settings: TrainingSettings | None = None,
        advance: Callable[[], None] = lambda: None,
    ) -> AttributeHead:
        """Train a head by the cross-entropy of the labels; whole texts are held out for early stopping.

        Args:
            examples: places of labelled texts.
            config: sizes of the head.
            trained_for: fingerprints that the head stores.
            settings: of the training.
            advance: called after each epoch.

        Raises:
            ParameterError: no examples, values that are not finite, or labels of one kind.
        """
        features, labels, texts = examples
        head_training.check_examples("AttributeHead.fit", features, labels)
        base_rate = float(labels.double().mean())
        if not 0 < base_rate < 1:
            raise ParameterError("AttributeHead.fit", "labels", "of two kinds", f"{base_rate} everywhere")
        settings = settings or TrainingSettings()
        split = _split(texts, settings)
        network = head_training.initialised(lambda: AttributeNetwork(config), features[split.train], settings.seed)
        loss = nn.BCEWithLogitsLoss()
        history = head_training.train(
            network, features, labels.float(), loss, split=split, settings=settings, advance=advance
        )
        head = cls(network, config, base_rate=base_rate, trained_for=trained_for, report={})
        head.report = {"base_rate": base_rate, "epochs": len(history.training), "best_epoch": history.best}
        head.report |= {"held_out_loss": history.held_out[history.best], **_measured(head, examples, split)}
        return head

    def save(self, folder: str | Path) -> None:
        """Write ``head.safetensors`` and ``head.json`` into a folder."""
        metadata = {"config": asdict(self.config), "base_rate": self.base_rate, "report": self.report}
        save_head(folder, KIND, self.network, metadata | {"trained_for": self.trained_for._asdict()})

    @classmethod
    def load(cls, folder: str | Path) -> AttributeHead:
        """Read a head from a folder; no code from the files runs.

        Raises:
            FileFormatError: the folder holds no attribute head, or a damaged one.
        """
        state, metadata = load_head(folder, KIND)
        config, network = build_network(_network, metadata, state, KIND)
        try:
            base_rate, trained_for = float(metadata["base_rate"]), ModelFingerprint(**metadata["trained_for"])
            if not 0 < base_rate < 1:
                raise ValueError(f"base_rate {base_rate}")
            return cls(network, config, base_rate=base_rate, trained_for=trained_for, report=dict(metadata["report"]))
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(
                f"{KIND}: {folder} must hold base_rate, trained_for and report, got {error!r}; train it again"
            ) from error


def _network(content: Mapping[str, Any]) -> tuple[AttributeHeadConfig, AttributeNetwork]:
    """Return the configuration and the untrained network of a file."""
    config = AttributeHeadConfig(**content)
    return config, AttributeNetwork(config)


def _split(texts: Tensor, settings: TrainingSettings) -> Split:
    """Return the places of the texts to train on and of those held out."""
    numbers = texts.unique()
    held_out = torch.isin(texts, numbers[head_training.split_rows(len(numbers), settings).held_out])
    return Split(*(mask.nonzero()[:, 0] for mask in (~held_out, held_out)))


def _measured(head: AttributeHead, examples: AttributeExamples, split: Split) -> dict[str, Any]:
    """Return the accuracy at the last place of each held-out text, and the loss of the base rate on held-out places."""
    places = split.held_out
    if not len(places):
        return {"held_out": 0}
    labels, texts = examples.labels[places].double(), examples.texts[places]
    last = torch.cat([texts[1:] != texts[:-1], torch.ones(1, dtype=torch.bool)])
    right = (head(examples.features[places[last]]) > math.log(0.5)) == (labels[last] > 0.5)
    base = -(labels * math.log(head.base_rate) + (1 - labels) * math.log1p(-head.base_rate)).mean()
    return {"held_out": int(last.sum()), "accuracy": float(right.double().mean()), "base_loss": float(base)}
