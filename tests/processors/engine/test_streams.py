"""One contract for second streams: plain functions, readers, and readers of other tokenizers."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor

from fakes import encoder_decoder_model
from logitkit.processors.contrast import CFG
from logitkit.processors.engine import Binding, Stream, as_stream, read_prompts
from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer


def last_token(rows: Tensor) -> Tensor:
    """Logits that depend on the last token of each row."""
    return rows[:, -1:].float() * torch.tensor([[1.0, 2.0]])


def test_a_plain_function_becomes_a_stream() -> None:
    """`positions` calls the function on each prefix, and `where` calls it only if a row wants the logits."""
    stream = as_stream(last_token)
    rows = torch.tensor([[7, 3], [1, 4]])
    assert isinstance(stream, Stream) and not stream.fusable
    assert stream(rows).tolist() == [[3.0, 6.0], [4.0, 8.0]]
    assert stream.positions(rows, 2).tolist() == [[[7.0, 14.0], [3.0, 6.0]], [[1.0, 2.0], [4.0, 8.0]]]
    assert stream.where(torch.tensor([False, False]), rows) is None
    wanted = stream.where(torch.tensor([False, True]), rows)
    assert wanted is not None and torch.equal(wanted, stream(rows))


def test_a_stream_stays_itself() -> None:
    """`as_stream` returns a stream unchanged, and two wrappers of one function are equal."""
    stream = as_stream(last_token)
    assert as_stream(stream) is stream and as_stream(last_token) == stream
    assert pickle.loads(pickle.dumps(stream)) == stream


def test_processors_accept_functions_and_streams() -> None:
    """A constructor wraps a plain function, and declares the stream that it will request."""
    plain, wrapped = (CFG(unconditional=source, scale=2.0) for source in (last_token, as_stream(last_token)))
    scores = torch.tensor([[0.5, 0.25]]).log()
    rows = torch.tensor([[5, 0]])
    torch.testing.assert_close(plain(rows, scores), wrapped(rows, scores))
    assert plain.streams == wrapped.streams == (as_stream(last_token),)


def test_every_reader_is_a_stream() -> None:
    """Only a decoder-only reader of the generating model's tokens is fusable."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    binding = Binding(model, tokenizer, read_prompts(tokenizer, model, ["a prompt"]))
    foreign = binding.foreign_reader([[1, 2]], foreign_model(), foreign_tokenizer())
    reader = binding.reader([[1, 2]])
    encoder = encoder_decoder_model()
    other = Binding(encoder, tokenizer, read_prompts(tokenizer, encoder, ["a prompt"])).reader([[1, 2]])
    assert all(isinstance(stream, Stream) for stream in (reader, foreign, other))
    assert (reader.fusable, foreign.fusable, other.fusable) == (True, False, False)


def test_positions_of_a_reader_with_another_tokenizer() -> None:
    """Each position equals the logits after that prefix alone, and `where` requests nothing in vain."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    prompts = read_prompts(tokenizer, model, ["a prompt"])
    binding = Binding(model, tokenizer, prompts)
    reader = binding.foreign_reader([[1, 2]], foreign_model(), foreign_tokenizer())
    rows = torch.cat([prompts.ids, torch.tensor([tokenizer(" and more")["input_ids"]])], dim=1)
    got = reader.positions(rows, 4)
    want = [reader(rows[:, : rows.shape[1] - back]) for back in (3, 2, 1, 0)]
    torch.testing.assert_close(got, torch.stack(want, dim=1), atol=1e-5, rtol=0)
    assert reader.where(torch.tensor([False]), rows) is None


def test_the_docs_show_the_code_of_the_example() -> None:
    """The page on plugins repeats the processor of examples/third_party/second_stream word for word."""
    root = Path(__file__).parents[3]
    source = (root / "examples/third_party/second_stream/src/logitkit_blend/processor.py").read_text()
    assert source[source.index("import math") :] in (root / "docs/write_a_plugin.md").read_text()
