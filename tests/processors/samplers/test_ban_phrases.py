"""No output contains a banned phrase, however it is divided into tokens, in any mode of generating."""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import logitkit
from foreign import sentencepiece_tokenizer
from logitkit.adapters import tokens_only
from logitkit.errors import ModelError, ParameterError, ScoresError
from logitkit.processors.engine import Constraint, Prompts
from logitkit.processors.engine.call_settings import CallSettings
from logitkit.processors.samplers import BanPhrases
from logitkit.processors.tokens import Vocabulary
from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer

REAL = ("gpt2", "mistral_nemo", "mistral_v1", "qwen2_5")
PHRASES = ["naïve café", "Привет, мир", "日本語の文", "🙂👍🏽", "x\n\ty = 1", "नमस्ते"]


def ban(tokenizer: Any, prompt: list[int], phrases: list[str], **options: Any) -> BanPhrases:
    """The processor over a tokenizer alone, for one prompt."""
    ids = torch.tensor([prompt])
    prompts = Prompts(ids=ids, mask=torch.ones_like(ids), texts=("",), messages=(None,), adds_specials=False)
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=None), config=None)
    own: dict[str, Any] = {"prompts": prompts, "settings": CallSettings(model, prompts)}
    return BanPhrases(phrases=phrases, vocabulary=Vocabulary.of(tokenizer), **own, **options)


def random_split(vocabulary: Vocabulary, data: bytes, generator: random.Random) -> list[int]:
    """Tokens that spell bytes, at random: not those that the tokenizer would write."""
    longest, tokens = max(len(text) for text in vocabulary.token_bytes if text), list[int]()
    while data:
        fitting = [length for length in range(1, min(longest, len(data)) + 1) if data[:length] in vocabulary.ids_of]
        length = generator.choice(fitting)
        tokens.append(generator.choice(vocabulary.ids_of[data[:length]]))
        data = data[length:]
    return tokens


@pytest.fixture(scope="module", params=REAL)
def real_tokenizer(request: pytest.FixtureRequest, shared_tokenizers: Path) -> Any:
    """A real tokenizer."""
    return PreTrainedTokenizerFast(tokenizer_file=str(shared_tokenizers / request.param / "tokenizer.json"))


@pytest.mark.data
def test_a_phrase_over_three_tokens_and_more_of_real_tokenizers(real_tokenizer: Any) -> None:
    """Mixed scripts, each phrase divided at random: exactly the tokens that complete a phrase are removed."""
    tokenizer, vocabulary, generator = real_tokenizer, Vocabulary.of(real_tokenizer), random.Random(0)
    banned = [phrase.encode() for phrase in PHRASES]
    processor = ban(tokenizer, random_split(vocabulary, b"so: ", generator), PHRASES)
    longest = max(map(len, banned))
    for phrase in banned:
        tokens: list[int] = []
        while len(tokens) < 3:
            tokens = random_split(vocabulary, phrase, generator)
        row = [*processor.prompts.tokens(0), *tokens[:-1]]
        allowed = processor.allowed(torch.tensor([row]))[0]
        assert not allowed[tokens[-1]]
        if phrase not in banned[:3]:
            continue  # looking at every token takes long
        before = vocabulary.join(row)[-longest:]
        want = torch.tensor(
            [not text or not any(one in (before + text)[-len(text) - len(one) + 1 :] for one in banned)
             for text in vocabulary.token_bytes]
        )  # fmt: skip
        assert torch.equal(allowed, want) and (~want).sum() < len(want) / 2


@pytest.mark.data
def test_random_texts_of_real_tokenizers(real_tokenizer: Any) -> None:
    """Tokens drawn at random from short ones under a dense ban decode to texts without the phrases, folded too."""
    tokenizer, vocabulary = real_tokenizer, Vocabulary.of(real_tokenizer)
    generator = torch.Generator().manual_seed(0)
    letters = torch.tensor(
        [bool(text) and set(text.lower()) <= set("aeßést ".encode()) for text in vocabulary.token_bytes]
    )
    phrases = ["ea", "ß", "sst", "é a", "t t", "ae"]
    processor = ban(tokenizer, vocabulary.ids_of[b"a"][:1], phrases, fold_case=True)
    row = processor.prompts.ids
    for _ in range(60):
        scores = torch.zeros(1, len(vocabulary)).masked_fill(~letters, -torch.inf)
        probabilities = processor(row, scores).softmax(-1)
        row = torch.cat([row, torch.multinomial(probabilities, 1, generator=generator)], dim=1)
    text = tokenizer.decode(row[0]).casefold()
    assert len(text) > 60 and not any(phrase.casefold() in text for phrase in phrases)


MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "samples": {"do_sample": True, "num_return_sequences": 4},
    "beams": {"num_beams": 4, "num_return_sequences": 4},
    "assisted": {"assistant_model": foreign_model(3)},
    "lookup": {"prompt_lookup_num_tokens": 3},
}


@pytest.mark.parametrize("mode", MODES)
def test_no_output_contains_a_phrase(mode: str) -> None:
    """The phrases are the pairs of characters that the model writes most without the ban."""
    model, tokenizer = foreign_model(), foreign_tokenizer()
    prompts = ["the other one" * 3] if mode in ("assisted", "lookup") else ["the other one", "on"]
    options = {"max_new_tokens": 24, "do_sample": False, **MODES[mode]}
    torch.manual_seed(0)
    free = logitkit.generate(model, tokenizer, prompts, **options).texts
    pairs = {text[at : at + 2] for text in free for at in range(len(text) - 1)}
    phrases = sorted(pair for pair in pairs if "\ufffd" not in pair)[:40]
    assert phrases
    call = logitkit.chain([{"name": "ban_phrases", "params": {"phrases": phrases}}]).bind(model, tokenizer, prompts)
    for _ in range(2):  # a used call too
        torch.manual_seed(0)
        texts = call.texts(call.generate(**options))
        assert not any(phrase in text for phrase in phrases for text in texts) and any(texts)


def test_an_occurrence_may_begin_in_the_prompt() -> None:
    """It ends in the continuation; one that ends in the prompt bans nothing more than any text does."""
    call = logitkit.chain("ban_phrases(['cat'])").bind(tiny_model(), tiny_tokenizer(), ["a cat, a ca", "a cat"])
    scores = call.composite(call.prompts.ids, torch.zeros(2, 272))
    removed = [tiny_tokenizer().convert_ids_to_tokens(row.isinf().nonzero()[:, 0].tolist()) for row in scores]
    assert removed == [["t"], []]


def test_special_tokens_have_no_text() -> None:
    """The decoded text leaves them out, so an occurrence may span one."""
    tokenizer = tiny_tokenizer()
    processor = ban(tokenizer, tokenizer("c")["input_ids"], ["cat"])
    row = torch.tensor([[*tokenizer("c")["input_ids"], 256, *tokenizer("a")["input_ids"], 999]])
    assert tokenizer.convert_ids_to_tokens((~processor.allowed(row)[0]).nonzero()[:, 0].tolist()) == ["t"]


def test_a_ban_that_leaves_nothing() -> None:
    """The error names the step, and says whether its rule or an earlier step took the last token."""
    tokenizer = tiny_tokenizer()
    processor = ban(tokenizer, tokenizer("a")["input_ids"], ["b", "c"])
    assert isinstance(processor, Constraint)
    scores = torch.full((2, 259), -torch.inf)
    scores[:, tokenizer("bc")["input_ids"]] = 0.0
    rows = torch.tensor([tokenizer("aa")["input_ids"]] * 2)
    with pytest.raises(ScoresError, match="row 0 must keep a token, got none: the tokens that it allows were removed"):
        processor(rows, scores)
    scores[0, tokenizer("d")["input_ids"]] = 0.0
    with pytest.raises(ScoresError, match="ban_phrases: row 1 must keep"):
        processor(rows, scores)
    with pytest.raises(ScoresError, match="an earlier step removed every token"):
        processor(rows, torch.full((2, 259), -torch.inf))


def byte_level_tokenizer(letters: str) -> Any:
    """A tokenizer whose only tokens are letters."""
    inner = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def test_a_ban_of_the_whole_vocabulary() -> None:
    """The rule itself forbids every token; the way out is to ban fewer phrases."""
    processor = ban(byte_level_tokenizer("ab"), [0], ["a", "b"])
    with pytest.raises(ScoresError, match="its rule forbids every token of the vocabulary here; ban fewer phrases"):
        processor(torch.tensor([[0, 1]]), torch.zeros(1, 2))
    assert not processor.allowed(torch.tensor([[0]])).any()


def test_finished_rows_are_left_alone() -> None:
    """Padding after the end token is no text, and a finished row has nothing to lose."""
    call = logitkit.chain("ban_phrases(['aa'])").bind(tiny_model(), tiny_tokenizer(), ["xa", "ya"])
    end, letter = 257, tiny_tokenizer()("a")["input_ids"][0]
    rows = torch.cat([call.prompts.ids, torch.tensor([[end], [258]])], dim=1)
    scores = call.composite(rows, torch.zeros(2, 272))
    assert torch.isfinite(scores[0]).all() and scores[1].isinf().nonzero()[:, 0].tolist() == [letter]


def test_bytes_cut_from_the_prompt_may_be_spelled_again() -> None:
    """byte_boundary cuts "the" from a prompt that ends in it; the ban applies behind these bytes alone."""
    model, tokenizer = foreign_model(), foreign_tokenizer()
    chain = "byte_boundary() | ban_phrases(['on th', 'the'])"
    generation = logitkit.generate(model, tokenizer, "on th", chain=chain, do_sample=False, max_new_tokens=12)
    assert generation.texts[0] and "the" not in "on th" + generation.texts[0]


def test_rules() -> None:
    """No phrase, an empty phrase, U+FFFD and the text of a special token are refused with the way out."""
    for phrases in ([], [""], ["a", "\ufffd"]):
        with pytest.raises(ParameterError, match="phrases must be one or more texts without U"):
            logitkit.chain([{"name": "ban_phrases", "params": {"phrases": phrases}}]).bind(
                tiny_model(), tiny_tokenizer(), "a"
            )
    with pytest.raises(ParameterError, match=r"texts without special tokens, got '</s>'; .*suppress_tokens\(\[257\]\)"):
        logitkit.chain("ban_phrases(['</s>'])").bind(tiny_model(), tiny_tokenizer(), "a")


def test_a_tokenizer_that_drops_spaces_is_refused() -> None:
    """Its decoder turns "a ." into "a.", which no token spells."""
    inner = Tokenizer(models.WordPiece(vocab={"it": 0, "is": 1, ".": 2, "[UNK]": 3}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.decoder = decoders.WordPiece()
    with pytest.raises(ModelError, match="removes spaces before punctuation"):
        logitkit.chain("ban_phrases(['a'])").bind(
            tiny_model(), PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="[UNK]"), "it is ."
        )


def test_spaces_of_a_sentencepiece_tokenizer() -> None:
    """The mark of a space is a space of the phrase."""
    tokenizer = sentencepiece_tokenizer()
    vocabulary = Vocabulary.of(tokenizer)
    processor = ban(tokenizer, [vocabulary.ids_of[b"n"][0]], ["n the"])
    removed = (~processor.allowed(processor.prompts.ids)[0]).nonzero()[:, 0].tolist()
    assert tokenizer.convert_ids_to_tokens(removed) == ["▁the"]


def test_engines_without_a_model() -> None:
    """The step needs tokens and scores alone."""
    tokenizer = tiny_tokenizer()
    own = tokens_only.TokensOnly("an engine", tokenizer, tokenizer("a ca")["input_ids"], ends=[257], tables={})
    processor = BanPhrases.bind(own, phrases=["cat"], fold_case=False)
    scores = processor(own.prompts.ids, torch.zeros(1, 300))  # more columns than the tokenizer has ids
    assert scores.isinf().nonzero()[:, 1].tolist() == tokenizer("t")["input_ids"]


def test_pickles() -> None:
    """A copy forbids the same."""
    processor = ban(tiny_tokenizer(), tiny_tokenizer()("ca")["input_ids"], ["CAT"], fold_case=True)
    rows = processor.prompts.ids
    copy = pickle.loads(pickle.dumps(processor))
    assert torch.equal(copy.allowed(rows), processor.allowed(rows)) and (~copy.allowed(rows)).sum() == 2
