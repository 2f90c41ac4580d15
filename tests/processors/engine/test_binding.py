"""What a binding offers to processors, and its errors."""

from __future__ import annotations

from typing import Any

import pytest

from logitkit.errors import ModelError, ParameterError, UnknownNameError
from logitkit.processors.engine import Binding, read_prompts
from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer

TEXTS = ["one prompt", "a second, longer prompt"]


def bound(**options: Any) -> Binding:
    """A binding of two prompts to a tiny model."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    return Binding(model, tokenizer, read_prompts(tokenizer, model, TEXTS), **options)


def test_own_prompts_have_no_padding() -> None:
    """The own prompts are the token ids of the texts."""
    assert bound().own_prompts() == [tiny_tokenizer()(text)["input_ids"] for text in TEXTS]


def test_readers_are_listed_in_the_trace() -> None:
    """A second reader of the same label gets a number; a shared reader is listed once."""
    binding = bound()
    own = binding.own_prompts()
    binding.reader(own)
    binding.reader(own)
    binding.reader([[1], [2]])
    binding.foreign_reader([[1], [2]], foreign_model(), foreign_tokenizer(), label="far")
    assert list(binding.trace.readers) == ["second prompt", "second prompt #2", "far"]


def test_one_text_per_prompt() -> None:
    """One text serves all prompts; another number of texts, or an empty text, is refused."""
    binding = bound()
    assert list(binding.one_text_per_prompt("cfg", "negative", "no")) == ["no", "no"]
    assert list(binding.one_text_per_prompt("cfg", "negative", ["no", "nothing"])) == ["no", "nothing"]
    for texts in (["no"], ["no", ""], ""):
        with pytest.raises(ParameterError, match="cfg: negative must be one text, or 2"):
            binding.one_text_per_prompt("cfg", "negative", texts)


def test_resources_are_found_by_name_and_counted_as_used() -> None:
    """An unknown name is an error that says how to pass the object."""
    binding = bound(resources={"table": 7})
    assert binding.resource("table") == 7 and binding.used == {"table"}
    with pytest.raises(UnknownNameError, match="no resource named 'teble'; did you mean 'table'"):
        binding.resource("teble")


def test_models_are_passed_or_loaded() -> None:
    """A passed model comes first; another name is loaded once, together with its tokenizer."""
    calls: list[tuple[str, Any]] = []

    def load(name: str, *, like: Any) -> tuple[Any, Any]:
        calls.append((name, like))
        return tiny_model(2), tiny_tokenizer()

    binding = bound(resources={"other": tiny_model(1)}, load=load)
    assert binding.model_named("other") is tiny_model(1) and not calls
    assert binding.model_named("hub/name") is binding.model_named("hub/name") is tiny_model(2)
    assert calls == [("hub/name", binding.model)] and binding.tokenizer_named("hub/name") is tiny_tokenizer()
    with pytest.raises(UnknownNameError, match=r"pass it: chain.bind\(..., hub=model\)"):
        bound().model_named("hub")
    with pytest.raises(ModelError, match="model 'other' must come with its tokenizer"):
        binding.tokenizer_named("other")


def test_a_model_with_another_vocabulary_is_refused() -> None:
    """Tokenizers are compared where they are known, else the widths of the vocabularies."""
    binding = bound(resources={"other": tiny_model(1), "far": foreign_model()}, tokenizers={"far": foreign_tokenizer()})
    assert binding.model_with_same_vocabulary("other", "contrastive") is tiny_model(1)
    with pytest.raises(ModelError, match="contrastive: model 'far' must have the tokenizer of the generating model"):
        binding.model_with_same_vocabulary("far", "contrastive")
    unknown = bound(resources={"far": foreign_model()})
    with pytest.raises(ModelError, match="must have the vocabulary of the generating model"):
        unknown.model_with_same_vocabulary("far", "contrastive")


def test_the_binding_of_a_later_step_shares_everything_but_the_preceding_steps() -> None:
    """Readers, resources and histories are the same objects."""
    binding = bound(resources={"table": 7})
    later = binding.after([("first", object())])
    assert later.reader([[1], [2]]) is binding.reader([[1], [2]])
    later.resource("table")
    assert binding.used == {"table"} and later.histories is binding.histories
    assert later.history is not binding.history and set(binding.histories) == {0, 1}
