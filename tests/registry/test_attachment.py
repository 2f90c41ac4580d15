"""Chains attached to a model: every generate is bound on its own inputs, and nothing is left behind."""

from __future__ import annotations

import copy
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList, SuppressTokensLogitsProcessor, pipeline

import logitkit
from fakes import encoder_decoder_model, own_model
from logitkit.errors import FileFormatError, ModeError, ModelError, ParameterError, UnknownNameError
from logitkit.registry.laws import tiny_model, tiny_tokenizer

GREEDY: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False}
CFG = "cfg(3.0, negative='a fish')"
TEXTS = ["a prompt", "one longer prompt", "sea"]


@pytest.fixture
def model() -> Any:
    """A model that no other test attaches to."""
    return own_model()


def encoded(texts: list[str], side: str = "left") -> Any:
    """Return the encoding of texts, padded on a side."""
    return tiny_tokenizer()(texts, return_tensors="pt", padding=True, padding_side=side)


def test_every_generate_is_bound_on_its_own_inputs(model: Any) -> None:
    """Tokens are those of `logitkit.generate`; arguments by position and by name give the same."""
    with logitkit.attach(model, tiny_tokenizer(), CFG) as attachment:
        for texts in (TEXTS, TEXTS[:1]):
            inputs = encoded(texts)
            want = logitkit.generate(model, tiny_tokenizer(), texts, chain=CFG, **GREEDY).ids
            assert torch.equal(model.generate(**inputs, **GREEDY), want)
            config = GenerationConfig(**GREEDY)
            by_position = model.generate(inputs["input_ids"], config, attention_mask=inputs["attention_mask"])
            assert torch.equal(by_position, want)
    assert attachment.calls == 4 and attachment.trace is not None and attachment.trace.calls == 6


def test_rows_begin_with_the_ids_as_given(model: Any) -> None:
    """Right padding moves inside, and the rows still begin as given, also as an output object and with more rows."""
    inputs = encoded(TEXTS, "right")
    with logitkit.attach(model, tiny_tokenizer(), CFG):
        ids = model.generate(**inputs, **GREEDY)
        more = model.generate(
            **inputs, max_new_tokens=6, num_beams=2, num_return_sequences=2, return_dict_in_generate=True
        )
    width = inputs["input_ids"].shape[1]
    assert torch.equal(ids[:, :width], inputs["input_ids"])
    assert torch.equal(more.sequences[:, :width], inputs["input_ids"].repeat_interleave(2, dim=0))
    alone = logitkit.generate(model, tiny_tokenizer(), TEXTS[2], chain=CFG, **GREEDY)
    assert ids[2, width:].tolist() == alone.ids[0, -6:].tolist()


def test_a_pipeline_generates_under_the_chain(model: Any) -> None:
    """The text-generation pipeline, which the user does not control, gives the chain's texts."""
    tokenizer = copy.deepcopy(tiny_tokenizer())  # a pipeline sets the side on which it pads
    generator = pipeline("text-generation", model=model, tokenizer=tokenizer)
    settings: dict[str, Any] = {**GREEDY, "return_full_text": False}
    plain = generator(TEXTS, **settings)
    with logitkit.attach(model, tiny_tokenizer(), CFG):
        done = generator(TEXTS, **settings)
    want = [logitkit.generate(model, tiny_tokenizer(), text, chain=CFG, **GREEDY).texts[0] for text in TEXTS]
    assert [row[0]["generated_text"] for row in done] == want
    assert generator(TEXTS, **settings) == plain != done


def test_steps_that_rewrite_prompts_are_refused(model: Any) -> None:
    """A pipeline cuts rows at the length of its prompt, and would lose the bytes that were given back."""
    with pytest.raises(ModeError, match="attach: a chain must leave the prompts as they are, got byte_boundary"):
        logitkit.attach(model, tiny_tokenizer(), "top_k(5) | byte_boundary()")
    assert "generate" not in vars(model)


def test_an_encoder_decoder_is_bound(model: Any) -> None:
    """The rows are those of the decoder."""
    model = copy.deepcopy(encoder_decoder_model())
    with logitkit.attach(model, tiny_tokenizer(), CFG):
        ids = model.generate(**encoded(TEXTS, "right"), **GREEDY)
    assert torch.equal(ids, logitkit.generate(model, tiny_tokenizer(), TEXTS, chain=CFG, **GREEDY).ids)


def test_the_last_attached_chain_is_used_and_ends_in_any_order(model: Any) -> None:
    """Chains do not add up; each ends by itself; at last the model is as it was."""
    inputs, plain = encoded(TEXTS), model.generate(**encoded(TEXTS), **GREEDY)
    outer = logitkit.attach(model, tiny_tokenizer(), CFG)
    first = model.generate(**inputs, **GREEDY)
    with logitkit.attach(model, tiny_tokenizer(), "suppress_tokens([101])") as inner:
        assert not torch.equal(model.generate(**inputs, **GREEDY), first)
        outer.detach()
        outer.detach()
        assert inner.active and not outer.active
        model.generate(**inputs, **GREEDY)
    assert (outer.calls, inner.calls) == (1, 2)
    assert "generate" not in vars(model)
    assert torch.equal(model.generate(**inputs, **GREEDY), plain)


def test_an_error_inside_the_block_detaches(model: Any) -> None:
    """Nothing is left behind, and the message of the handle says so."""
    with pytest.raises(ZeroDivisionError), logitkit.attach(model, tiny_tokenizer(), CFG) as attachment:
        assert repr(attachment) == f"<chain {str(logitkit.chain(CFG))!r} attached to LlamaForCausalLM>"
        raise ZeroDivisionError
    assert "generate" not in vars(model) and "detached from" in repr(attachment)


def test_threads_share_an_attached_model(model: Any) -> None:
    """Each generate has a call of its own, while another chain comes and goes."""
    inputs = [encoded([text]) for text in TEXTS * 6]
    want = [logitkit.generate(model, tiny_tokenizer(), text, chain=CFG, **GREEDY).ids for text in TEXTS * 6]
    with logitkit.attach(model, tiny_tokenizer(), CFG), ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda given: model.generate(**given, **GREEDY), inputs))
    assert all(torch.equal(*pair) for pair in zip(got, want, strict=True))


def test_own_calls_keep_their_own_chain(model: Any) -> None:
    """`logitkit.generate` and a bare generate with bound processors run without the attached chain."""
    call = logitkit.chain("top_k(1)").bind(model, tiny_tokenizer(), TEXTS)
    want = model.generate(**call.inputs, **GREEDY)
    with logitkit.attach(model, tiny_tokenizer(), CFG) as attachment:
        own = logitkit.generate(model, tiny_tokenizer(), TEXTS, chain="top_k(1)", **GREEDY).ids
        bare = model.generate(**call.inputs, logits_processor=call.processors, **call.generate_kwargs, **GREEDY)
        assert torch.equal(own, want) and torch.equal(bare, want) and attachment.calls == 0
        processors = LogitsProcessorList([SuppressTokensLogitsProcessor(list(range(100)))])
        ids = model.generate(**encoded(TEXTS), logits_processor=processors, **GREEDY)
        assert attachment.calls == 1 and int(ids[:, -6:].min()) >= 100


def test_a_copy_of_the_model_is_not_attached(model: Any) -> None:
    """A deep copy and a pickled copy generate as the class does, with their own weights."""
    inputs = encoded(TEXTS)
    plain = model.generate(**inputs, **GREEDY)
    with logitkit.attach(model, tiny_tokenizer(), CFG):
        copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        for other in copies:
            assert torch.equal(other.generate(**inputs, **GREEDY), plain)
            assert other.generate.__self__ is other


def test_a_generate_that_a_program_replaced_comes_back(model: Any) -> None:
    """The program's generate runs under the chain and is put back; second streams are read by themselves."""
    seen, of_class = [], model.generate

    def replaced(*args: Any, **kwargs: Any) -> Any:
        seen.append(sorted(kwargs))
        return of_class(*args, **kwargs)

    model.generate = replaced
    with logitkit.attach(model, tiny_tokenizer(), CFG) as attachment:
        ids = model.generate(**encoded(TEXTS), **GREEDY)
    assert model.generate is replaced and len(seen) == 1
    assert attachment.trace is not None and "program replaced" in str(attachment.trace.fusion)
    del model.generate
    assert torch.equal(ids, logitkit.generate(model, tiny_tokenizer(), TEXTS, chain=CFG, **GREEDY).ids)


def test_named_models_are_loaded_once(model: Any, tmp_path: Path) -> None:
    """A model that a parameter names is read when the chain is attached; later generates need its folder no more."""
    folder = tmp_path / "amateur"
    tiny_model(2).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    with logitkit.attach(model, tiny_tokenizer(), f"contrastive(amateur={str(folder)!r})"):
        shutil.rmtree(folder)
        first = model.generate(**encoded(TEXTS), **GREEDY)
        assert torch.equal(model.generate(**encoded(TEXTS), **GREEDY), first)
    other = copy.deepcopy(tiny_model(1))
    with logitkit.attach(model, tiny_tokenizer(), "contrastive(amateur='small')", resources={"small": other}):
        assert not torch.equal(model.generate(**encoded(TEXTS), **GREEDY), first)


def test_a_chain_saved_beside_a_model_is_found_by_name(tiny_checkpoint: str, tmp_path: Path) -> None:
    """`Chain.save` writes into the folder of the model; `attach` and `Chain.saved` read it from there."""
    folder = tmp_path / "model"
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    with pytest.raises(FileFormatError, match=r"must hold chains/default.yaml, got no such file \(saved there: none\)"):
        logitkit.Chain.saved(folder)
    assert logitkit.chain(CFG).save(folder) == folder / "chains" / "default.yaml"
    logitkit.chain("top_p(0.5)").save(folder, "careful")
    assert logitkit.Chain.saved(folder) == logitkit.chain(CFG)
    with pytest.raises(FileFormatError, match="saved there: careful, default"):
        logitkit.Chain.saved(folder, "bold")
    model, tokenizer = logitkit.models.load(str(folder))
    with logitkit.attach(model, tokenizer) as attachment:
        assert attachment.chain == logitkit.chain(CFG)


@pytest.mark.parametrize("name", ["", "../up", "a b", "x" * 65, 3])
def test_names_of_saved_chains_are_plain(name: Any, tmp_path: Path) -> None:
    """A name is no path."""
    with pytest.raises(ParameterError, match="chain: name must be 1 to 64 letters"):
        logitkit.chain(CFG).save(tmp_path, name)


def test_bad_input_is_refused_before_the_model_runs(model: Any) -> None:
    """What cannot be attached is refused at once, and what cannot be bound at the generate."""
    with pytest.raises(
        ModelError, match="attach: model must be a transformers model with generate, got 'model'; load it: "
    ):
        logitkit.attach("model", tiny_tokenizer(), CFG)
    with pytest.raises(UnknownNameError, match="'other'"):
        logitkit.attach(model, tiny_tokenizer(), CFG, resources={"other": model})
    with pytest.raises(UnknownNameError, match="absent"):
        logitkit.attach(model, tiny_tokenizer(), "contrastive(amateur='absent')")
    assert "generate" not in vars(model)
    with logitkit.attach(model, tiny_tokenizer(), CFG):
        embeds = model.get_input_embeddings()(encoded(TEXTS)["input_ids"])
        with pytest.raises(ModeError, match=r"attach: generate must be given input_ids.*got do_sample, inputs_embeds"):
            model.generate(inputs_embeds=embeds, **GREEDY)
