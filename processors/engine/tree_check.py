"""A check that a model reads a tree of token sequences exactly, made once for each model before the first `KVTree`.

A tree needs a forward that takes an attention mask with four dimensions and positions that are not those of the cache.
A forward may ignore either (recurrent models, biases by place as in MPT, local attention by place as in GPT-Neo). The
check reads two short paths that fork, and compares each with a forward over that path alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import torch
from torch import Tensor
from transformers import DynamicCache

from logitkit.errors import ModelError
from logitkit.processors.engine.reading_check import agree, forwarded_for, has_no_embeddings, refuse_by_name
from logitkit.processors.engine.reading_check import without_hooks as bare
from logitkit.processors.model_facts import context_length, text_config, vocabulary_size

if TYPE_CHECKING:
    from logitkit.processors.engine.kv_tree import KVTree

LAYERS = {"full_attention", "sliding_attention"}
APART = 16  # half the number of slots between the trunk and the second path
LONGEST = 1024  # tokens of the longest paths

_EXACT: WeakSet[Any] = WeakSet()


def check_tree(model: Any, kind: type[KVTree]) -> None:
    """Compare two paths of a tree with forwards over each path, at the first use of the model.

    A model in training mode is not checked, since dropout makes every forward different.

    Args:
        model: the model of a tree.
        kind: the class of the tree.

    Raises:
        ModelError: an encoder-decoder or a recurrent model; a forward that takes no cache, fails on a tree, or gives
            other logits than for each path alone.

    Example:
        >>> from logitkit.processors.engine import KVTree
        >>> from logitkit.registry.laws import tiny_model
        >>> check_tree(tiny_model(), KVTree)
    """
    if model in _EXACT:
        return
    name, config = type(model).__name__, text_config(model)
    other_layers = set(getattr(config, "layer_types", None) or ()) - LAYERS
    if model.config.is_encoder_decoder or other_layers or any(DynamicCache(config=config).is_linear):
        raise ModelError(
            f"KVTree: model must be causal with attention in all layers, got {name}; choose a decoder-only model "
            "without recurrent layers"
        )
    refuse_by_name(model, name, "KVTree")
    if getattr(model, "training", False) or has_no_embeddings(model):
        return
    got, want = forwarded_for("KVTree", name, lambda: _paths(bare(model), kind))
    if not all(agree(one, other, model) for one, other in zip(got, want, strict=True)):
        raise ModelError(
            f"KVTree: the forward of {name} must give each path of a tree the logits of that path alone, got others; "
            "choose a model whose attention uses a mask of four dimensions and position_ids"
        )
    _EXACT.add(model)


def _paths(model: Any, kind: type[KVTree]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the log-probabilities after two forks, as the tree reads them, and from a forward over each path."""
    size = vocabulary_size(model)
    first, second, third = ((size // 2 + place) % size for place in range(1, 4))
    limit = min(LONGEST, context_length(model) or LONGEST)
    window = int(getattr(text_config(model), "window_size", None) or 0)  # a window that no mask of the tree applies
    trunk = [first, second, third] * (1 + (window // 3 if window + 8 < limit else 0))
    # The slots of the second path lie far behind its positions, so that a bias by slot weighs.
    tails = [[second, third] * min(APART, max(1, (limit - len(trunk)) // 2)), [third, first, second]]
    tree = kind(model, exact=True)
    node = tree.read(tree.root, trunk, conditioning=True)
    nodes = tree.grow((node, tail) for tail in tails)
    got = [torch.from_numpy(end.logp) for end in nodes if end.logp is not None]
    with torch.no_grad():
        rows = [torch.tensor([trunk + tail], device=model.device) for tail in tails]
        outputs = [model(input_ids=row, logits_to_keep=1) for row in rows]  # the head of a large vocabulary costs
    return got, [output.logits[0, -1].float().log_softmax(-1).cpu() for output in outputs]
