"""Members of ensembles: alignments by name, by file and over bytes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import logitkit
from ensembles import RESOURCES, TOKENIZERS, bound, decode
from logitkit.errors import LogitkitError, ModelError, ParameterError
from logitkit.processors.byte_level import ByteModel, byte_tokenizer
from logitkit.processors.ensemble import AlignmentVocabulary, align
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def test_an_alignment_passed_by_name_or_file(tmp_path: Path) -> None:
    """An alignment passed by name or file is used; one for other vocabularies is refused before any model runs."""
    sides = (
        AlignmentVocabulary.of(RESOURCES["far"], TOKENIZERS["far"]),
        AlignmentVocabulary.of(tiny_model(), tiny_tokenizer()),
    )
    alignment = align("gac", *sides)
    alignment.save(tmp_path / "map.safetensors")
    want = decode(bound("ensemble(models=['far'], align='gac')"))
    assert torch.equal(decode(bound("ensemble(models=['far'], align='mine')", mine=alignment)), want)
    assert torch.equal(decode(bound(f"ensemble(models=['far'], align='{tmp_path}/map.safetensors')")), want)
    with pytest.raises(ModelError, match="alignment must be for these vocabularies, but its helper"):
        bound("core(models=['piece'], align='mine')", mine=alignment)
    with pytest.raises(ParameterError, match="align must be an Alignment"):
        bound("core(models=['piece'], align='mine')", mine="a text")


@pytest.mark.parametrize(("fuse", "named"), [("arithmetic", "mixture"), ("geometric", "product")])
def test_bytes_are_one_more_alignment(fuse: str, named: str) -> None:
    """``ensemble(align='bytes')`` equals ``byte_ensemble``, and ``core`` accepts ``align='bytes'``."""
    main, helper, tokenizer = ByteModel(tiny_model(0), tiny_tokenizer()), tiny_model(1), tiny_tokenizer()
    prompts = ["ab a", "xyz"]

    def scores(chain: str) -> torch.Tensor:
        call = logitkit.chain(chain).bind(main, byte_tokenizer(), prompts, b=helper, tokenizers={"b": tokenizer})
        return call.composite(call.prompts.ids, main(call.prompts.ids).logits[:, -1])

    want = scores(f"byte_ensemble(models=['b'], weights=[1.0, 3.0], fuse='{named}')")
    got = scores(f"ensemble(models=['b'], align='bytes', weights=[1.0, 3.0], fuse='{fuse}')")
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    assert bool(torch.isfinite(scores("core(models=['b'], align='bytes', topk=0)")).any(-1).all())


def test_bytes_align_all_or_none() -> None:
    """``bytes`` needs a generating model over bytes, counts for all helpers, and takes no prompts."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    for chain, error in (
        ("ensemble(models=['b'], align='bytes')", "ensemble: the generating model must be a ByteModel, got Llama"),
        ("core(models=['b', 'c'], align=['bytes', 'gac'])", "'bytes' for all models or for none"),
        ("ensemble(models=['b'], align='bytes', prompts={'b': 'x'})", "left out with align='bytes'"),
    ):
        with pytest.raises(LogitkitError, match=re.escape(error)):
            logitkit.chain(chain).bind(model, tokenizer, "a", b=model, c=model, tokenizers={"b": tokenizer})


def test_deepen_needs_embeddings() -> None:
    """A model over bytes has no embeddings: a named error before any model runs."""
    main = ByteModel(tiny_model(), tiny_tokenizer())
    with pytest.raises(ModelError, match=r"deepen: every model must have input embeddings, got a ByteModel"):
        logitkit.chain("deepen(models=['b'])").bind(
            main,
            byte_tokenizer(),
            "a",
            b=ByteModel(tiny_model(1), tiny_tokenizer()),
            tokenizers={"b": byte_tokenizer()},
        )
