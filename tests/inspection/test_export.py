"""Inspections as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
import math

from inspections import inspect_foreign_model, inspect_tiny_model
from logitkit.inspection import Comparison, csv_table, json_data


def test_json_and_csv_hold_every_token_of_every_side() -> None:
    """Both say the same of each token: prompt, chain, text, ranks, probabilities."""
    pair = Comparison(first=inspect_tiny_model("top_k(3)"), second=inspect_tiny_model(""))
    other = inspect_tiny_model("temperature(0.5)", 'Twice, "quoted"')
    data = json.loads(json.dumps(json_data(pair, other), allow_nan=False))["inspections"]
    assert [(entry["prompt_number"], entry["chain"]) for entry in data] == [
        (1, "top_k(top_k=3)"),
        (1, ""),
        (2, "temperature(temperature=0.5)"),
    ]
    lines = list(csv.DictReader(io.StringIO(csv_table(pair, other))))
    tokens = [(entry, token) for entry in data for token in entry["tokens"]]
    assert len(lines) == len(tokens) == 24
    for line, (entry, token) in zip(lines, tokens, strict=True):
        assert (int(line["prompt_number"]), line["chain"]) == (entry["prompt_number"], entry["chain"])
        assert (int(line["token_number"]), line["text"]) == (token["token_number"], token["text"])
        assert float(line["probability_after"]) == token["probability"]["after"]
        assert int(line["rank_before"]) == token["rank"]["before"]
        assert float(line["entropy_after_bits"]) == token["entropy_bits"]["after"]
        assert line["changed"] == str(token["changed"])
    assert len(data[0]["tokens"][0]["before"]) == 8 and len(data[0]["tokens"][0]["after"]) == 3
    assert [step["name"] for step in data[0]["tokens"][0]["processors"]] == ["top_k"]


def test_an_impossible_token_is_null_in_json() -> None:
    """A token that was impossible before the chain has an infinite surprisal, which JSON cannot hold."""
    inspection = inspect_tiny_model("")
    move = inspection.moves[0]
    object.__setattr__(move, "surprisal", (math.inf, 1.0))
    token = json.loads(json.dumps(json_data(inspection), allow_nan=False))["inspections"][0]["tokens"][0]
    assert token["surprisal_bits"] == {"before": None, "after": 1.0}
    assert next(csv.DictReader(io.StringIO(csv_table(inspection))))["surprisal_before_bits"] == "inf"


def test_texts_survive_csv() -> None:
    """Commas, quotes and line breaks in a token come back as they were."""
    inspection = inspect_tiny_model("")
    words = [chr(10), chr(13), ",", chr(34), " a", "=1+1", "", chr(9)]
    object.__setattr__(inspection, "token_text", dict(enumerate(words)).get)
    for number, move in enumerate(inspection.moves):
        object.__setattr__(move, "token", number)
    read = csv.DictReader(io.StringIO(csv_table(inspection), newline=""))
    assert [line["text"] for line in read] == words


def test_marks_of_the_tokenizer_are_exported() -> None:
    """JSON and CSV say which tokens the tokenizer would not write; nothing where that is unknown."""
    inspection = inspect_foreign_model("temperature(2.0)")
    tokens = json_data(inspection)["inspections"][0]["tokens"]
    lines = list(csv.DictReader(io.StringIO(csv_table(inspection))))
    assert [token["non_canonical"] for token in tokens] == list(inspection.non_canonical or ())
    assert [line["non_canonical"] for line in lines] == [str(token["non_canonical"]) for token in tokens]
    vars(inspection)["non_canonical"] = None  # in the place of the cached value, as for a slow tokenizer
    assert json_data(inspection)["inspections"][0]["tokens"][0]["non_canonical"] is None
    assert next(csv.DictReader(io.StringIO(csv_table(inspection))))["non_canonical"] == ""
