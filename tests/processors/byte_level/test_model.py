"""`ByteModel`: distributions by enumeration, and every decoding mode against reading from scratch."""

from __future__ import annotations

import copy
import io
import pickle
import re
from contextlib import redirect_stdout
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TextStreamer

import logitkit
from fakes import own_model
from logitkit.errors import ModeError, ModelError, ParameterError
from logitkit.processors.byte_level import ByteModel, byte_tokenizer, rows_of, texts_of
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from reference.byte_distributions import FromScratch, SlowBytes, tiny

PROMPTS = [b"ab", b"b a ab", b"a"]
MODES: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True},
    "several": {"do_sample": True, "num_return_sequences": 3},
    "beams": {"do_sample": False, "num_beams": 3, "num_return_sequences": 2},
    "beam sampling": {"do_sample": True, "num_beams": 2},
    "no cache": {"do_sample": False, "use_cache": False},
    "warpers": {"do_sample": True, "temperature": 0.7, "top_k": 2, "top_p": 0.9},
}


def written(ids: torch.Tensor, prompt: int) -> list[bytes]:
    """Return the bytes of rows after a prompt of ``prompt`` ids."""
    return [bytes(row[row < 256].tolist()) for row in ids[:, prompt:]]


def chi_square_tail(counts: list[int], shares: list[float]) -> float:
    """Return the probability that a fair sample is at least as far from its expected counts."""
    distance = sum((count - share) ** 2 / share for count, share in zip(counts, shares, strict=True))
    halves = torch.tensor([(len(counts) - 1) / 2, distance / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(halves[0], halves[1]))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), text=st.text("ab ", max_size=5).map(str.encode), split=st.booleans())
def test_equals_enumeration(seed: int, text: bytes, split: bool) -> None:
    """The distribution after each prefix is that of all covers, normalised; other bytes are impossible."""
    model, tokenizer = tiny(seed, split=split)
    slow = SlowBytes(model, tokenizer)
    output = ByteModel(model, tokenizer)(**rows_of([b"", text]))
    for place, logp in enumerate(output.logits[1].exp()):
        row = rows_of([b"", text])["input_ids"][1, : place + 1]
        (begun,) = texts_of(row[None])[0]
        for letter, want in slow.distribution(begun).items():
            assert float(logp[letter]) == pytest.approx(want, abs=1e-5)
        assert int((logp > 0).sum()) == 4


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_equals_reading_from_scratch(mode: str) -> None:
    """At each step, each row's scores are those of a new model that reads the row alone."""
    model, tokenizer = tiny(3)
    inputs = rows_of(PROMPTS)
    probe = FromScratch(model, tokenizer, inputs["attention_mask"])
    torch.manual_seed(0)
    ByteModel(model, tokenizer).generate(**inputs, logits_processor=[probe], max_new_tokens=4, **MODES[mode])
    assert probe.calls >= 3 and probe.worst < 1e-4


@pytest.mark.filterwarnings("ignore:Passing `generation_config`")
@pytest.mark.parametrize("prompt", [b"ab ab", b"b", b"aab aab aa"])
def test_assisted_decoding_and_prompt_lookup_are_plain_decoding(prompt: bytes) -> None:
    """Greedy decoding with a draft model of another tokenizer, or with prompt lookup, writes the same bytes."""
    model, draft = ByteModel(*tiny(3)), ByteModel(*tiny(5))
    inputs: dict[str, Any] = {**rows_of([prompt]), "max_new_tokens": 12, "do_sample": False}
    plain = model.generate(**inputs)
    for more in ({"assistant_model": draft}, {"prompt_lookup_num_tokens": 3}):
        assert torch.equal(ByteModel(*tiny(3)).generate(**inputs, **more), plain)


def test_padding_and_other_rows_change_nothing() -> None:
    """Greedy bytes of a padded batch are those of each prompt alone."""
    model = ByteModel(*tiny(3))
    together = model.generate(**rows_of(PROMPTS), max_new_tokens=8, do_sample=False)
    alone = [model.generate(**rows_of([p]), max_new_tokens=8, do_sample=False) for p in PROMPTS]
    width = max(map(len, PROMPTS))
    for text, rows, prompt in zip(written(together, width), alone, PROMPTS, strict=True):
        assert text == written(rows, len(prompt))[0]


def test_samples_follow_the_distribution_of_whole_texts() -> None:
    """A chi-square test compares 4000 samples of up to 3 bytes with enumeration (false alarm 1 in 10,000)."""
    model, tokenizer = tiny(11)
    expected = SlowBytes(model, tokenizer).texts(b"ab", 3)
    torch.manual_seed(0)
    ids = ByteModel(model, tokenizer).generate(
        **rows_of([b"ab"]), max_new_tokens=3, do_sample=True, top_k=0, num_return_sequences=4000
    )
    seen: dict[bytes, int] = {}
    for row in ids[:, 2:].tolist():
        ended = b"\xff" if 256 in row else b""
        text = bytes(byte for byte in row if byte < 256) + ended
        seen[text] = seen.get(text, 0) + 1
    assert set(seen) <= set(expected) and sum(expected.values()) == pytest.approx(1)
    common = [text for text, p in expected.items() if p * 4000 >= 5]
    counts = [seen.get(text, 0) for text in common]
    shares = [expected[text] * 4000 for text in common]
    counts.append(4000 - sum(counts))
    shares.append(4000 - sum(shares))
    assert len(common) > 8
    assert chi_square_tail(counts, shares) > 1e-4


def test_a_step_reads_all_rows_in_one_forward() -> None:
    """Eight bytes of three rows cost one forward a step, and none when the same texts come again."""
    model = ByteModel(*tiny(3))
    inputs = rows_of(PROMPTS)
    model(**inputs, logits_to_keep=1)
    opened = model.forwards
    model.generate(**inputs, max_new_tokens=8, min_new_tokens=8, do_sample=False)
    assert model.forwards - opened <= 7
    model.generate(**inputs, max_new_tokens=8, min_new_tokens=8, do_sample=False)
    assert model.forwards - opened <= 7


def test_leak_and_bound() -> None:
    """The output has the leak of the tree's distribution; with a tolerance, the error stays within the bound."""
    model, tokenizer = tiny(3)
    exact, rough = ByteModel(model, tokenizer), ByteModel(model, tokenizer, tolerance=0.02)
    inputs = rows_of([b"ab abab"])
    output = exact(**inputs)
    distribution = exact.distribution(b"ab abab")
    assert float(output.leak[0, -1]) == pytest.approx(distribution.leak) and distribution.leak > 0
    assert float(output.bound.max()) == 0 and float(rough(**inputs).bound.max()) >= 0
    torch.testing.assert_close(output.logits[0, -1].exp().sum(), torch.tensor(1.0))
    assert exact.tree.logp(b"ab abab") - rough.tree.logp(b"ab abab") <= rough.distribution(b"ab abab").bound + 1e-5


def test_after_its_end_a_text_only_ends() -> None:
    """An id 256 after a byte can be followed by 256 only; before the first byte, 256 is padding."""
    model = ByteModel(*tiny(3))
    ids = torch.tensor([[256, 256, 97, 98, 256, 97]])
    logits = model(input_ids=ids).logits[0]
    assert logits[4, 256] == 0 and logits[5, 256] == 0 and bool((logits[4:, :256] == -torch.inf).all())
    torch.testing.assert_close(logits[3], model.logp([b"ab"])[0])
    torch.testing.assert_close(logits[0], model.logp([b""])[0])


def test_conditioning_tokens_precede_every_text() -> None:
    """The distribution after conditioning tokens is the language model's own after these tokens."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    before = [tokenizer.bos_token_id, *tokenizer("given")["input_ids"]]
    got = ByteModel(model, tokenizer, conditioning=before).logp([b"so"])[0]
    ids = torch.tensor([[*before, *tokenizer("so")["input_ids"]]])
    logits = model(ids).logits[0, -1]
    order = [*(tokenizer(chr(letter))["input_ids"][0] for letter in range(97, 123)), tokenizer.eos_token_id]
    want, found = logits[order].log_softmax(-1), got[[*range(97, 123), 256]].log_softmax(-1)
    torch.testing.assert_close(found, want, atol=1e-4, rtol=0)


def test_stop_strings_and_streaming() -> None:
    """Stop strings and streaming work with the byte tokenizer; the streamed text is the returned one."""
    tokenizer = byte_tokenizer()
    model = ByteModel(*tiny(3))
    inputs = rows_of([b"ab"])
    settings: dict[str, Any] = {"max_new_tokens": 10, "min_new_tokens": 10, "do_sample": False}
    with redirect_stdout(io.StringIO()) as streamed:
        plain = model.generate(**inputs, **settings, streamer=TextStreamer(tokenizer, skip_prompt=True))
    text = written(plain, 2)[0].decode()
    assert streamed.getvalue() == text + "\n"
    stopped = model.generate(**inputs, **settings, stop_strings=[text[3:5]], tokenizer=tokenizer)
    whole = "ab" + text
    assert written(stopped, 0)[0].decode() == whole[: whole.index(text[3:5]) + 2]


@pytest.mark.parametrize(
    "chain", ["cfg(scale=1.5, negative='a')", "uscd(gate=1.0, lame='b a')", "contrastive('small')"]
)
@pytest.mark.parametrize("mode", ["greedy", "sampling", "beams"])
def test_contrast_between_models_with_different_tokenizers(chain: str, mode: str) -> None:
    """Rows of a padded batch get the texts of a new call alone, also when the amateur has another tokenizer."""
    prompts = ["ab", "b a ab"]
    model, small = ByteModel(*tiny(3)), ByteModel(*tiny(5))
    resources = {"small": small} if "small" in chain else {}
    settings: dict[str, Any] = {"max_new_tokens": 5, **MODES[mode]}
    call = logitkit.chain(chain).bind(model, byte_tokenizer(), prompts, **resources)
    torch.manual_seed(0)
    output = call.generate(**settings, output_scores=True, return_dict_in_generate=True)
    assert [len(text) <= 5 for text in call.texts(output)]
    if mode == "greedy":
        fresh = {name: ByteModel(*tiny(5)) for name in resources}
        alone = [
            logitkit.generate(
                ByteModel(*tiny(3)), byte_tokenizer(), text, chain=logitkit.chain(chain), **settings, resources=fresh
            ).texts[0]
            for text in prompts
        ]
        assert call.texts(output) == alone


def test_contrastive_by_hand() -> None:
    """With expert and amateur of different tokenizers, the scores are the formula on the two distributions."""
    model, small = ByteModel(*tiny(3)), ByteModel(*tiny(5))
    call = logitkit.chain("contrastive('small', beta=1.0, alpha=0.1)").bind(model, byte_tokenizer(), "ab", small=small)
    expert, amateur = model.logp([b"ab"]), small.logp([b"ab"])
    got = call.composite(call.inputs["input_ids"], expert)
    plausible = expert >= expert.max() + torch.tensor(0.1).log()
    want = (expert - amateur).masked_fill(~plausible, -torch.inf).log_softmax(-1)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def test_refusals() -> None:
    """Ids of another tokenizer, an impossible prompt, a static cache, a nested ByteModel and saving are errors."""
    model = ByteModel(*tiny(3))
    with pytest.raises(ModelError, match=r"input_ids must be bytes.*got 300; encode with byte_tokenizer"):
        model(input_ids=torch.tensor([[300]]))
    with pytest.raises(ModelError, match=re.escape("must be text that LlamaForCausalLM can write, got b'xyz'")):
        model.generate(**rows_of([b"xyz"]), max_new_tokens=2)
    with pytest.raises(ModeError, match="must be a DynamicCache, got StaticCache"):
        model.generate(**rows_of([b"ab"]), max_new_tokens=2, cache_implementation="static")
    with pytest.raises(ModelError, match="got a ByteModel; use the ByteModel directly"):
        ByteModel(model, tiny(3)[1])
    with pytest.raises(ModelError, match=r"save \.model"):
        model.save_pretrained("somewhere")


def test_no_begin_token() -> None:
    """Without a begin token the first shared token is known; an empty text is a named error."""
    model, tokenizer = tiny(3)
    plain = ByteModel(model, tokenizer, bos=None)
    assert float(plain.logp([b"ab a"]).exp().sum()) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ModelError, match="no begin token; pass bos="):
        plain.generate(max_new_tokens=2)


def test_a_cast_drops_the_caches() -> None:
    """After a cast to another dtype, no distribution from before is used."""
    model, tokenizer = tiny(3)
    moved = ByteModel(model, tokenizer)
    before = moved.logp([b"ab"])
    moved.double()
    after = moved.logp([b"ab"])
    moved.float()
    assert not torch.equal(before, after)
    torch.testing.assert_close(before, after, atol=1e-5, rtol=0)


def test_a_copy_has_read_nothing_and_gives_the_same() -> None:
    """Also after a long text, whose chain of nodes is deeper than Python recurses, and with the copied weights."""
    model = ByteModel(copy.deepcopy(tiny_model()), tiny_tokenizer())
    text = torch.tensor([list(b"the old man went to the sea " * 17)])
    want = model(text).logits
    other = copy.deepcopy(model)
    assert other.forwards == 0 and other.tree.model is other.model is not model.model
    torch.testing.assert_close(other(text).logits, want)


def test_a_pickled_model_gives_the_same() -> None:
    """A ByteModel survives pickling with its settings and conditioning, and has read nothing."""
    model = ByteModel(own_model(), tiny_tokenizer(), tolerance=1e-3, bos=None, conditioning=[5, 6], covers="all")
    model.tree.conditioning = (7, 8)
    want = model.logp([b"ab"]), model.tree.logp(b"ab")
    other = pickle.loads(pickle.dumps(model))
    assert other.forwards == 0 and other.tree.model is other.model
    assert (other.covers, other.tree.tolerance, other.tree.conditioning) == ("all", 1e-3, (7, 8))
    torch.testing.assert_close(other.logp([b"ab"]), want[0])
    assert other.tree.logp(b"ab") == pytest.approx(want[1], abs=1e-5)


@pytest.mark.parametrize("text", ["text", bytearray(b"ab"), None, 97])
def test_texts_must_be_bytes(text: Any) -> None:
    """Whatever else is given in place of bytes is refused in the same words, by every method that takes a text."""
    model = ByteModel(tiny_model(), tiny_tokenizer())
    for owner, ask in (
        ("ByteTree", model.tree.logp),
        ("ByteTree", model.tree.next_byte),
        ("ByteTree", model.distribution),
        ("ByteTree", lambda text: model.tree.distributions([b"a", text])),
        ("ByteModel", lambda text: model.logp([b"a", text])),
    ):
        with pytest.raises(ParameterError, match=rf"{owner}: text must be bytes, got .*; pass"):
            ask(text)
    with pytest.raises(ParameterError, match="ByteModel: text must be bytes, got 97; pass a list of bytes"):
        model.logp(b"ab")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="ByteTree: conditionings must be one for each text, got 2"):
        model.tree.distributions([b"a"], conditionings=[(1,), (2,)])
