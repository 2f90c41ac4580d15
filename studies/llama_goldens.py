"""What llama.cpp's samplers make of a few rows, as data for the tests of logitkit's samplers.

python -m studies.llama_goldens LIBLLAMA.so VOCABULARY.gguf tests/processors/samplers/llama_goldens.json

The library and a file of a vocabulary without weights (``models/ggml-vocab-gpt-2.gguf``) are those of the source
distribution of llama-cpp-python 0.3.36, which holds llama.cpp 0c1e57098 (libllama 0.5.0, ggml 0.25.3), built with
``cmake -G Ninja vendor/llama.cpp -DCMAKE_CXX_FLAGS=-O1 -DLLAMA_BUILD_COMMON=OFF`` and ``ninja llama``.
Logits are multiples of 1/64, so that the file holds them exactly.
"""

from __future__ import annotations

import ctypes
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from studies import command

Row = list[float]
SEED = 7  # of the logits, and of samplers that draw
TEXTS = {  # each begins again in a way that breakers change
    "plain": "one two three four five one two three four",
    "line": "alpha beta\ngamma delta epsilon\nalpha beta\ngamma delta",
    "colon": 'He said: "no way out". She said: "no way',
    "marks": "a ## b c d e ## b c d e f ## b c d e",
    "inside": "x = y);\n\nz = w);\n\nx = y);\n\nz",
    "loop": " ha" * 40,
}
BREAKERS: list[list[str]] = [[], ["\n", ":", '"', "*"], ["##"], ["four"], [");\n"]]


class Candidate(ctypes.Structure):
    """One token with its logit and probability: ``llama_token_data``."""

    _fields_ = (("id", ctypes.c_int32), ("logit", ctypes.c_float), ("p", ctypes.c_float))


class Candidates(ctypes.Structure):
    """The tokens that are left: ``llama_token_data_array``."""

    _fields_ = (
        ("data", ctypes.POINTER(Candidate)),
        ("size", ctypes.c_size_t),
        ("selected", ctypes.c_int64),
        ("sorted", ctypes.c_bool),
    )


class ModelParameters(ctypes.Structure):
    """``llama_model_params`` of libllama 0.5.0."""

    _fields_ = (
        ("devices", ctypes.c_void_p),
        ("overrides", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("gpu_layers", "split_mode", "load_mode", "lazy_mode", "main_gpu")),
        *((name, ctypes.c_void_p) for name in ("tensor_split", "callback", "callback_data", "kv_overrides")),
        *((name, ctypes.c_bool) for name in ("vocab_only", "check", "extra_buffers", "no_host", "no_alloc", "mtp")),
    )


class Library:
    """The functions of libllama that make and apply samplers.

    Args:
        path: the shared library.
        vocabulary: a GGUF file; only its vocabulary is read.
    """

    def __init__(self, path: str, vocabulary: str) -> None:
        self.functions = ctypes.CDLL(path)
        call = self.functions
        for name in ("xtc", "top_n_sigma", "temp_ext", "penalties", "dry", "mirostat_v2", "adaptive_p"):
            getattr(call, f"llama_sampler_init_{name}").restype = ctypes.c_void_p
        call.llama_sampler_apply.argtypes = (ctypes.c_void_p, ctypes.POINTER(Candidates))
        call.llama_sampler_accept.argtypes = (ctypes.c_void_p, ctypes.c_int32)
        call.llama_model_default_params.restype = ModelParameters
        call.llama_model_load_from_file.restype = ctypes.c_void_p
        call.llama_model_get_vocab.restype = ctypes.c_void_p
        call.llama_model_get_vocab.argtypes = (ctypes.c_void_p,)
        call.llama_tokenize.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.c_void_p,
                                        ctypes.c_int32, ctypes.c_bool, ctypes.c_bool)  # fmt: skip
        call.llama_token_to_piece.argtypes = (ctypes.c_void_p, ctypes.c_int32, ctypes.c_char_p, ctypes.c_int32,
                                              ctypes.c_int32, ctypes.c_bool)  # fmt: skip
        call.llama_backend_init()
        parameters = call.llama_model_default_params()
        parameters.vocab_only = True
        model = call.llama_model_load_from_file(vocabulary.encode(), parameters)
        self.vocabulary = ctypes.c_void_p(call.llama_model_get_vocab(model))

    def sampler(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        """Return a new sampler; floats are passed as floats of 32 bits."""
        typed = [ctypes.c_float(value) if isinstance(value, float) else value for value in arguments]
        return ctypes.c_void_p(getattr(self.functions, f"llama_sampler_init_{name}")(*typed))

    def apply(self, sampler: ctypes.c_void_p, logits: Sequence[float]) -> tuple[dict[int, float], int]:
        """Return the logits of the tokens that are left, by id, and the token that the sampler drew, or -1."""
        data = (Candidate * len(logits))(*(Candidate(token, logit, 0.0) for token, logit in enumerate(logits)))
        left = Candidates(data, len(logits), -1, False)
        self.functions.llama_sampler_apply(sampler, ctypes.byref(left))
        kept = {left.data[n].id: left.data[n].logit for n in range(left.size)}
        drawn = left.data[left.selected].id if left.selected >= 0 else -1
        return {token: logit for token, logit in sorted(kept.items()) if logit > -float("inf")}, drawn

    def accept(self, sampler: ctypes.c_void_p, tokens: Sequence[int]) -> None:
        """Show tokens to a sampler."""
        for token in tokens:
            self.functions.llama_sampler_accept(sampler, token)

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        buffer = (ctypes.c_int32 * 1000)()
        data = text.encode()
        count = self.functions.llama_tokenize(self.vocabulary, data, len(data), buffer, 1000, False, False)
        return list(buffer[:count])

    def piece(self, token: int) -> str:
        """Return the text of a token."""
        buffer = ctypes.create_string_buffer(200)
        length = self.functions.llama_token_to_piece(self.vocabulary, token, buffer, 200, 0, False)
        return buffer.raw[:length].decode()


def rows(count: int, width: int) -> list[Row]:
    """Return random logits of several spreads, multiples of 1/64."""
    draw = random.Random(SEED)
    return [[round(draw.gauss(0, (0.3, 1, 3, 6)[n % 4]) * 64) / 64 for _ in range(width)] for n in range(count)]


def single_steps(library: Library) -> Iterator[dict[str, Any]]:
    """Yield cases of samplers without state: parameters as logitkit names them, number of the row, what is left."""
    for number, logits in enumerate(rows(8, 40)):
        for threshold in (0.0, 0.02, 0.1, 0.3, 0.5, 0.6):
            for probability in (0.0, 1.0):
                sampler = library.sampler("xtc", probability, threshold, ctypes.c_size_t(1), ctypes.c_uint32(SEED))
                kept, _ = library.apply(sampler, logits)
                case = {"threshold": threshold, "probability": probability, "row": number}
                yield {"name": "xtc", **case, "kept": list(kept)}
        for n in (-1.0, 0.5, 1.0, 2.0):
            kept, _ = library.apply(library.sampler("top_n_sigma", n), logits)
            yield {"name": "top_n_sigma", "n": n, "row": number, "kept": list(kept)}
        for temperature, spread, exponent in ((1.0, 0.5, 1.0), (0.5, 0.5, 1.0), (1.0, 0.9, 2.0), (1.2, 0.4, 0.5)):
            kept, _ = library.apply(library.sampler("temp_ext", temperature, spread, exponent), logits)
            limits = {"low": max(0.0, temperature - spread), "high": temperature + spread, "exponent": exponent}
            yield {"name": "dynamic_temperature", **limits, "row": number, "kept": list(kept.values())}


def penalties(library: Library) -> Iterator[dict[str, Any]]:
    """Yield cases of the count penalties; llama.cpp counts every token that it is shown."""
    draw = random.Random(SEED)
    row = draw.choices(range(12), k=100)
    for logits in rows(2, 12):
        for name, amount in (("frequency_penalty", 0.25), ("presence_penalty", 0.75), ("frequency_penalty", -0.5)):
            for window in (8, 64, 1000):
                by_count = (amount, 0.0) if name == "frequency_penalty" else (0.0, amount)
                sampler = library.sampler("penalties", 12, window, 1.0, *by_count)
                library.accept(sampler, row)
                kept, _ = library.apply(sampler, logits)
                yield {"name": name, "penalty": amount, "window": window, "row": row, "logits": logits, "kept": kept}


def repetitions(library: Library) -> Iterator[dict[str, Any]]:
    """Yield cases of DRY: the logits are 0, and only penalised tokens are listed."""
    for title, text in TEXTS.items():
        row = library.tokens(text)
        for breakers in BREAKERS:
            for window, allowed in ((1000, 2), (1000, 1), (12, 2)):
                texts = (ctypes.c_char_p * len(breakers))(*(breaker.encode() for breaker in breakers))
                arguments = (library.vocabulary, 0.8, 1.75, allowed, window, texts, ctypes.c_size_t(len(breakers)))
                sampler = library.sampler("dry", *arguments)
                library.accept(sampler, row)
                kept, _ = library.apply(sampler, [0.0] * (1 + max(row)))
                lost = {token: -logit for token, logit in kept.items() if logit}
                yield {"name": "dry", "text": title, "breakers": breakers, "window": window, "allowed_length": allowed,
                       "row": row, "lost": lost}  # fmt: skip


def controllers(library: Library) -> Iterator[dict[str, Any]]:
    """Yield cases of samplers with state: twelve steps with the logits, those that are left, and the token drawn."""
    for name, arguments in (
        ("mirostat_v2", {"tau": 5.0, "eta": 0.1}),
        ("mirostat_v2", {"tau": 1.0, "eta": 0.5}),
        ("adaptive_p", {"target": 0.5, "decay": 0.9}),
        ("adaptive_p", {"target": 0.2, "decay": 0.5}),
        ("adaptive_p", {"target": 0.9, "decay": 1.0}),
    ):
        first = (ctypes.c_uint32(SEED), *arguments.values())
        sampler = library.sampler(name, *(first if name == "mirostat_v2" else (*arguments.values(), first[0])))
        steps = []
        for logits in rows(12, 24):
            kept, drawn = library.apply(sampler, logits)
            library.accept(sampler, [drawn])
            steps.append({"logits": logits, "kept": kept, "drawn": drawn})
        yield {"name": name.removesuffix("_v2"), **arguments, "steps": steps}


def main(
    path: Annotated[str, typer.Argument(help="Library of llama.cpp.")],
    vocabulary: Annotated[str, typer.Argument(help="A vocabulary in the format GGUF.")],
    out: Annotated[Path, typer.Argument(help="File to write.")],
) -> None:
    """Write the data of all samplers."""
    library = Library(path, vocabulary)
    dry = list(repetitions(library))
    pieces = {token: library.piece(token) for token in sorted({token for case in dry for token in case["row"]})}
    data = {
        "made_by": "python -m studies.llama_goldens, llama.cpp 0c1e57098",
        "rows": rows(8, 40),
        "steps": list(single_steps(library)),
        "penalties": list(penalties(library)),
        "dry": {"pieces": pieces, "cases": dry},
        "controllers": list(controllers(library)),
    }
    out.write_text(json.dumps(data, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    command.run(main)
