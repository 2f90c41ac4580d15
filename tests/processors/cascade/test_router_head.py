"""Router heads: their features, training, threshold and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from logitkit.errors import FileFormatError, ParameterError
from logitkit.processors.cascade import (
    ModelPair,
    RouterHead,
    RouterHeadConfig,
    RouterNetwork,
    TrainingSettings,
    router_features,
    threshold_for_recall,
)
from logitkit.registry.laws import tiny_model, tiny_tokenizer

PAIR = ModelPair(small=tiny_model(), large=tiny_model(1), tokenizer=tiny_tokenizer())


def examples(count: int = 600) -> tuple[Tensor, Tensor, RouterHeadConfig]:
    """Return features, labels that depend on one feature, and the sizes of a small head."""
    config = RouterHeadConfig(hidden_size=6, embedding_size=4, top_logits=5, width=16, blocks=1)
    features = torch.randn(count, 15, generator=torch.Generator().manual_seed(0))
    return features, (features[:, 2] > 1).long(), config


def fitted(features: Tensor, labels: Tensor, config: RouterHeadConfig, **settings: Any) -> RouterHead:
    """Train a head with batches of 64."""
    return RouterHead.fit(features, labels, config, pair=PAIR, settings=TrainingSettings(batch_size=64, **settings))


def test_a_head_learns_and_reaches_its_recall() -> None:
    """The held-out recall is .95 at less than twice the base rate, and two trainings give the same head."""
    features, labels, config = examples()
    heads = [fitted(features, labels, config, epochs=30, learning_rate=3e-3) for _ in range(2)]
    assert heads[0].report["recall"] >= 0.95
    assert heads[0].report["rate"] < 2 * heads[0].report["base_rate"]
    assert torch.equal(heads[0](features), heads[1](features)) and heads[0].threshold == heads[1].threshold


def test_training_stops_early() -> None:
    """On random labels the held-out loss rises long before the last epoch, and training stops after the patience."""
    features, _, config = examples()
    labels = torch.randint(0, 2, (len(features),), generator=torch.Generator().manual_seed(1))
    head = fitted(features, labels, config, epochs=300, patience=5, learning_rate=1e-2)
    assert head.report["epochs"] < 300 and head.report["best_epoch"] == head.report["epochs"] - 6


@pytest.mark.parametrize(("recall", "want"), [(1.0, 0.1), (0.75, 0.2), (0.5, 0.5), (0.25, 0.8)])
def test_the_threshold_by_hand(recall: float, want: float) -> None:
    """With positives at .105, .205, .505 and .805, the threshold is the highest that routes the share."""
    scores, labels = torch.tensor([0.105, 0.205, 0.505, 0.805, 0.9, 0.3]), torch.tensor([1, 1, 1, 1, 0, 0])
    assert threshold_for_recall(scores, labels, recall) == want


def test_features_by_hand() -> None:
    """Features are hidden state, embedding of the most likely token, and the largest logits relative to the best."""
    logits = torch.tensor([[1.0, 4.0, 3.0, -torch.inf]])
    got = router_features(torch.tensor([[7.0]]), logits, lambda ids: ids[:, None].float(), top_logits=5)
    torch.testing.assert_close(got, torch.tensor([[7.0, 1.0, 0.0, -1.0, -3.0, -50.0, -50.0]]))


def test_a_saved_head_is_loaded_unchanged(tmp_path: Path) -> None:
    """A loaded head gives the same probabilities, threshold, pair and report."""
    features, labels, config = examples()
    head = fitted(features, labels, config, epochs=2)
    head.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.json", "head.safetensors"]
    loaded = RouterHead.load(tmp_path)
    assert torch.equal(loaded(features), head(features))
    assert (loaded.threshold, loaded.pair, loaded.report) == (head.threshold, head.pair, head.report)


@pytest.mark.parametrize("damage", ["json", "kind", "weights", "nan", "config", "missing"])
def test_a_damaged_head_is_refused(tmp_path: Path, damage: str) -> None:
    """Every kind of damage raises a FileFormatError when the head is loaded."""
    features, labels, config = examples()
    RouterHead.fit(features, labels, config, pair=PAIR, settings=TrainingSettings(epochs=1)).save(tmp_path)
    path, weights = tmp_path / "head.json", tmp_path / "head.safetensors"
    metadata = json.loads(path.read_text())
    if damage == "json":
        path.write_text("{")
    elif damage == "kind":
        path.write_text(json.dumps(metadata | {"kind": "another"}))
    elif damage == "config":
        path.write_text(json.dumps(metadata | {"config": metadata["config"] | {"width": 9}}))
    elif damage == "weights":
        weights.write_bytes(weights.read_bytes()[:-7])
    elif damage == "missing":
        weights.unlink()
    else:
        state = load_file(weights)
        save_file(state | {"mean": state["mean"] * torch.nan}, weights)
    with pytest.raises(FileFormatError, match="router head"):
        RouterHead.load(tmp_path)


def test_bad_examples_are_refused() -> None:
    """NaN features, labels of one class, no examples and a recall of 0 raise a ParameterError."""
    features, labels, config = examples(20)
    with_nan = features.clone()
    with_nan[3, 4] = torch.nan
    with pytest.raises(ParameterError, match=r"features must be finite numbers, got 'NaN or infinity in row 3'"):
        RouterHead.fit(with_nan, labels, config, pair=PAIR)
    with pytest.raises(ParameterError, match="labels must be of two classes, got '0 of 20 positive'"):
        RouterHead.fit(features, labels * 0, config, pair=PAIR)
    with pytest.raises(ParameterError, match="examples must be at least one"):
        RouterHead.fit(features[:0], labels[:0], config, pair=PAIR)
    with pytest.raises(ParameterError, match="recall must be"):
        RouterHead.fit(features, labels, config, pair=PAIR, recall=0.0)


def test_the_network_has_the_configured_blocks() -> None:
    """The network returns one logit a row and has as many blocks as the config says."""
    config = RouterHeadConfig(hidden_size=6, embedding_size=4, top_logits=5, width=8, blocks=3)
    network = RouterNetwork(config)
    assert network(torch.zeros(2, 15)).shape == (2,) and len(network.blocks) == 3
