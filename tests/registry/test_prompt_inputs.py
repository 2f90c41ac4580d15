"""Images, recordings, token types and positions that are bound with the prompts reach every stream of a chain."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import logitkit
from fakes import absolute_model
from logitkit.errors import ModeError, ParameterError, PromptError
from logitkit.processors.engine import read_prompts
from logitkit.processors.engine.inputs_reader import InputsReader
from logitkit.registry.call import Call
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from media_models import ENCODINGS, IMAGE, TEXTS, encoding, led, llava, noise, one_of

GREEDY: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
SCORES: dict[str, Any] = {"return_dict_in_generate": True, "output_scores": True}
CASCADE = "cascade(large='large', alpha=0.0)"  # every token is the large model's


def difference(got: Any, want: Any) -> float:
    """Return the largest difference of two tensors of logits, in nats after normalising."""
    got, want = (torch.stack(list(scores)).log_softmax(-1).clamp_min(-50) for scores in (got, want))
    return float((got - want).abs().max())


def bind(chain: str, model: Any, inputs: Any, **resources: Any) -> Call:
    """Bind a chain to an encoding."""
    return logitkit.chain(chain).bind(model, tiny_tokenizer(), inputs, **resources)


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3, "num_return_sequences": 2}])
@pytest.mark.parametrize("kind", ENCODINGS)
def test_a_large_model_answers_with_the_images(kind: str, settings: dict[str, Any]) -> None:
    """A cascade that always defers gives what the large model gives for the encoding, beams and batch included."""
    make, inputs = ENCODINGS[kind][0], ENCODINGS[kind][1]()
    want = make(1).generate(**inputs, **GREEDY, **SCORES, **settings)
    call = bind(CASCADE, make(0), inputs, large=make(1))
    got = call.generate(**GREEDY, **SCORES, **settings)
    assert torch.equal(got.sequences, want.sequences)
    assert difference(got.scores, want.scores) < 2e-5
    bare = make(0).generate(**call.inputs, logits_processor=call.processors, **GREEDY, **settings)
    assert torch.equal(bare, want.sequences)


def test_an_attached_chain_gets_the_images() -> None:
    """A `generate` that others call binds its images with its ids."""
    make, inputs = ENCODINGS["llava"][0], ENCODINGS["llava"][1]()
    want = make(1).generate(**inputs, **GREEDY)
    with logitkit.attach(make(0), tiny_tokenizer(), CASCADE, resources={"large": make(1)}):
        assert torch.equal(make(0).generate(**inputs, **GREEDY), want)


def following(model: Any, inputs: dict[str, Any], tail: Tensor) -> Tensor:
    """Return the logits after one unpadded prompt and a continuation, ``[1, vocab]``; the last token type goes on."""
    grown = dict(inputs)
    for name in ("attention_mask", "token_type_ids", "mm_token_type_ids"):
        if name in grown:
            grown[name] = torch.cat([grown[name], grown[name][:, -1:].expand(-1, len(tail))], dim=1)
    grown["input_ids"] = torch.cat([grown["input_ids"], tail[None]], dim=1)
    scores = model.generate(**grown, max_new_tokens=1, do_sample=False, eos_token_id=None, **SCORES).scores
    return scores[0]  # type: ignore[no-any-return]


SETTINGS = [("llava", {}), ("llava", {"do_sample": True, "num_return_sequences": 2}), ("llava", {"num_beams": 2})]


@pytest.mark.parametrize(("kind", "settings"), [*SETTINGS, ("gemma", {}), ("idefics", {})])
def test_visual_contrastive_decoding_equals_its_formula(kind: str, settings: dict[str, Any]) -> None:
    """Every distribution is q + 2 (p - q) of two models without a cache, each row alone, with its own two images."""
    make, inputs = ENCODINGS[kind][0], ENCODINGS[kind][1]()
    model, noisy = make(0), {"pixel_values": inputs["pixel_values"] + 2 * noise(*inputs["pixel_values"].shape)}
    seen: list[tuple[Tensor, Tensor]] = []

    def keep(input_ids: Tensor, scores: Tensor) -> Tensor:
        """Keep rows and scores; forbid the image token, after which a model without a cache expects more images."""
        seen.append((input_ids, scores))
        return scores.index_fill(1, torch.tensor([IMAGE]), -torch.inf)

    call = bind("cfg(2.0, negative_inputs='noisy')", model, inputs, noisy=noisy)
    call.generate(logits_processor=[keep], **(GREEDY | settings))
    assert len(seen) == GREEDY["max_new_tokens"]
    for rows, scores in seen:
        for number, row in enumerate(rows):
            prompt = number * 2 // len(rows)
            tail = row[call.prompts.width :]
            p, q = (
                following(model, one_of({**inputs, **changed}, prompt), tail).log_softmax(-1) for changed in ({}, noisy)
            )
            assert difference(scores[number : number + 1], q + 2 * (p - q)) < 1e-4


@pytest.mark.parametrize("settings", [{"prompt_lookup_num_tokens": 3}, {"assistant_model": llava(2)}])
def test_drafts_leave_the_text_as_it_is(settings: dict[str, Any]) -> None:
    """Rewound streams give the greedy text that plain decoding gives."""
    inputs = one_of(ENCODINGS["llava"][1](), 0)
    noisy = {"pixel_values": noise(1, 3, 8, 8) * 3}
    plain, drafted = (bind("cfg(2.0, negative_inputs='noisy')", llava(0), inputs, noisy=noisy) for _ in range(2))
    assert torch.equal(drafted.generate(**GREEDY, **settings), plain.generate(**GREEDY))


@pytest.mark.parametrize("kind", ENCODINGS)
def test_a_used_reader_equals_a_fresh_one(kind: str) -> None:
    """Rewound, permuted and repeated rows read as in a fresh reader."""
    model, prompts = ENCODINGS[kind][0](0), read_prompts(tiny_tokenizer(), ENCODINGS[kind][0](0), ENCODINGS[kind][1]())
    own = [prompts.tokens(number) for number in range(2)]
    tails = torch.randint(0, 250, (4, 6), generator=torch.Generator().manual_seed(0))
    rows = torch.cat([prompts.ids.repeat_interleave(2, 0), tails], dim=1)
    swapped = torch.cat([rows[:, : prompts.width], tails[[1, 0, 3, 2]]], dim=1)
    used = InputsReader(model, own, prompts, inputs=prompts.inputs)
    for asked in (rows[:, :-3], rows, rows[:, :-2], swapped[:, :-1], rows[:, : prompts.width], swapped):
        fresh = InputsReader(model, own, prompts, inputs=prompts.inputs)
        assert difference(used(asked), fresh(asked)) < 2e-5
    assert difference(used.positions(rows, 7)[:, 3], used(rows[:, :-3])) < 2e-5


def test_positions_of_the_rope_stay_those_of_generate() -> None:
    """A reader leaves what Qwen2-VL notes about the last prompts of `generate` as it is."""
    model, inputs = ENCODINGS["qwen"][0](0), ENCODINGS["qwen"][1]()
    model.generate(**one_of({name: inputs[name] for name in ("input_ids", "attention_mask")}, 0), **GREEDY)
    before = model.model.rope_deltas
    prompts = read_prompts(tiny_tokenizer(), model, inputs)
    own = [prompts.tokens(number) for number in range(2)]
    InputsReader(model, own, prompts, inputs=prompts.inputs)(prompts.ids)
    assert model.model.rope_deltas is before


def test_an_encoder_gets_its_inputs() -> None:
    """The global attention of a LED reaches the large model's encoder; a negative prompt without it is refused."""
    inputs = dict(tiny_tokenizer()(list(TEXTS), padding=True, padding_side="right", return_tensors="pt"))
    inputs["global_attention_mask"] = torch.zeros_like(inputs["input_ids"])
    inputs["global_attention_mask"][:, 1] = 1
    want = led(1).generate(**{name: value for name, value in inputs.items() if name != "token_type_ids"}, **GREEDY)
    assert torch.equal(bind(CASCADE, led(0), inputs, large=led(1)).generate(**GREEDY), want)
    with pytest.raises(ModeError, match=r"got also global_attention_mask, .* 'negative prompt'"):
        bind("cfg(2.0, negative='no')", led(0), inputs)


def test_scores_of_texts_read_the_images() -> None:
    """`logitkit.score` gives the log-probabilities that the model gives after the image."""
    inputs = one_of(ENCODINGS["llava"][1](), 0)
    (scored,) = logitkit.score(llava(0), tiny_tokenizer(), inputs, ["no"])
    tokens = tiny_tokenizer()("no")["input_ids"]
    want = [
        float(following(llava(0), inputs, torch.tensor(tokens[:place], dtype=torch.long)).log_softmax(-1)[0, token])
        for place, token in enumerate(tokens)
    ]
    assert scored.logp == pytest.approx(want, abs=1e-4)


def test_a_whole_encoding_as_negative_inputs() -> None:
    """Negative inputs with tokens are a whole prompt: a text alone takes the image out of the second stream."""
    inputs = one_of(ENCODINGS["llava"][1](), 0)
    text = tiny_tokenizer()("a fox", return_tensors="pt")
    call = bind("cfg(2.0, negative_inputs='text')", llava(0), inputs, text=text)
    got = call.generate(**GREEDY, **SCORES).scores[0]
    p, q = (model_input.log_softmax(-1) for model_input in _first_logits(inputs, dict(text)))
    assert difference(got, (q + 2 * (p - q))[0]) < 1e-4


def _first_logits(*encodings: dict[str, Any]) -> list[Tensor]:
    """Return the logits of the Llava after each encoding."""
    taken = [{name: value for name, value in each.items() if name != "token_type_ids"} for each in encodings]
    return [following(llava(0), each, torch.tensor([], dtype=torch.long)) for each in taken]


BAD_NEGATIVES: list[tuple[Any, type[Exception], str]] = [
    (3, ParameterError, "the name of an encoding passed to bind, got 'int'"),
    ({}, ParameterError, "the name of an encoding"),
    ({"input_ids": torch.ones(2, 3, dtype=torch.long)}, ParameterError, "one for each prompt of the call"),
    ({"input_ids": torch.tensor([[IMAGE, 97]])}, ModeError, "image tokens"),
    ({"sound": torch.ones(1)}, PromptError, "got also sound"),
]


@pytest.mark.parametrize(("negative", "error", "says"), BAD_NEGATIVES)
def test_wrong_negative_inputs(negative: Any, error: type[Exception], says: str) -> None:
    """Negative inputs of another form, number or medium are refused when the chain is bound."""
    inputs = one_of(ENCODINGS["llava"][1](), 0)
    with pytest.raises(error, match=says):
        bind("cfg(2.0, negative_inputs='wrong')", llava(0), inputs, wrong=negative)


def test_negative_text_and_negative_inputs_exclude_each_other() -> None:
    """One of the two describes the second stream."""
    with pytest.raises(ParameterError, match="negative_inputs must be None where negative is given"):
        bind("cfg(2.0, negative='no', negative_inputs='no')", tiny_model(), "a fox", no={"input_ids": [[7]]})


@pytest.mark.parametrize("chain", ["cfg(2.0, negative='no')", "cfg(2.0)", "cad(context='fox')"])
def test_a_prompt_without_the_image_is_refused(chain: str) -> None:
    """A stream whose own prompt is a text cannot get the image, and says so when the chain is bound."""
    inputs = one_of(ENCODINGS["llava"][1](), 0)
    with pytest.raises(
        ModeError, match=r"got also pixel_values, which the chain cannot hand to '.*', since its prompt"
    ):
        bind(chain, llava(0), inputs)


def test_a_model_without_images_is_refused() -> None:
    """A text model as second stream of a prompt with an image is refused by its class."""
    inputs = one_of(ENCODINGS["llava"][1](), 0)
    with pytest.raises(ModeError, match=r"pixel_values, .* 'large', since LlamaForCausalLM does not take them"):
        bind(CASCADE, llava(0), inputs, large=tiny_model(1))
    with pytest.raises(ModeError, match=r"pixel_values, .* 'byte_boundary', since it rewrites the tokens alone"):
        bind("byte_boundary()", llava(0), inputs)


@pytest.mark.parametrize("chain", ["cascade(large='large', alpha=0.0)", "cad(context='fox')"])
def test_image_tokens_without_an_image_are_refused(chain: str) -> None:
    """Tokens alone would be read as text by the second stream, which a bare `generate` could not notice."""
    inputs = {name: ENCODINGS["llava"][1]()[name][:1] for name in ("input_ids", "attention_mask")}
    resources = {"large": llava(1)} if "large" in chain else {}
    with pytest.raises(ModeError, match=rf"image tokens \(id {IMAGE}\) must be bound with the images"):
        bind(chain, llava(0), inputs, **resources)
    bind("top_k(3)", llava(0), inputs)  # no stream: generate reads the images that it is given


def test_bound_inputs_are_given_once() -> None:
    """Images that are bound are not given to `generate` a second time."""
    inputs = one_of(ENCODINGS["llava"][1](), 0)
    call = bind("top_k(3)", llava(0), inputs)
    with pytest.raises(ModeError, match="pixel_values must be given once"):
        call.generate(pixel_values=inputs["pixel_values"])
    assert call.trace.fusion is not None and torch.equal(
        call.generate(**GREEDY), llava(0).generate(**inputs, **(GREEDY | {"top_k": 3}))
    )


@pytest.mark.parametrize("name", ["token_type_ids", "position_ids"])
def test_token_types_and_positions_are_carried_or_refused(name: str) -> None:
    """GPT-2 reads both in every stream with the same prompt; other prompts are refused; a Llama has no token types."""
    inputs = encoding(0, **{name: torch.arange(22).view(2, 11) % 13 + 3})
    want = absolute_model(1).generate(**inputs, **GREEDY, **SCORES)
    got = bind(CASCADE, absolute_model(0), inputs, large=absolute_model(1)).generate(**GREEDY, **SCORES)
    assert torch.equal(got.sequences, want.sequences) and difference(got.scores, want.scores) < 2e-5
    with pytest.raises(ModeError, match=f"got also {name}, which the chain cannot hand to 'negative prompt'"):
        bind("cfg(2.0, negative='no')", absolute_model(), inputs)
    call = bind("top_k(3)", tiny_model(), inputs)
    assert (name in call.inputs) == (name == "position_ids")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"decoder_input_ids": [[1]]}, "give it to generate"),
    ({"labels": [[1]]}, "give it to generate"),
    ({"inputs_embeds": torch.zeros(1, 2, 3)}, "not inputs_embeds"),
    ({"attention_mask": torch.tensor([[0.5, 1.0]])}, "1 for a token and 0 for padding"),
    ({"attention_mask": torch.ones(1, 1, 2, 2)}, r"must be \[prompts, tokens\]"),
    ({"attention_mask": torch.tensor([[1, 0]]), "position_ids": [[0, 1]]}, "padded on the left to its longest"),
    ({"attention_mask": torch.tensor([[0, 1]]), "position_ids": [[0, 1]]}, "padded on the left to its longest"),
    ({"pixel_values": 3}, "got also pixel_values"),
]


@pytest.mark.parametrize(("further", "says"), WRONG)
def test_encodings_that_are_refused(further: dict[str, Any], says: str) -> None:
    """Inputs that are no inputs of prompts, and masks of other values, are refused by name."""
    with pytest.raises(PromptError, match=says):
        bind("", tiny_model(), {"input_ids": torch.tensor([[97, 98]]), **further})


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.float16, torch.int32])
def test_masks_of_every_dtype(dtype: torch.dtype) -> None:
    """A mask of another dtype gives the text that a mask of whole numbers gives."""
    inputs = encoding(0)
    want = bind("cfg(2.0, negative='no')", absolute_model(), inputs).generate(**GREEDY)
    typed = inputs | {"attention_mask": inputs["attention_mask"].to(dtype)}
    assert torch.equal(bind("cfg(2.0, negative='no')", absolute_model(), typed).generate(**GREEDY), want)
