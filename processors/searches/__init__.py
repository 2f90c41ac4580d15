"""Searches over the law of a chain, and selectors among their sequences.

A `Search` is a ``custom_generate`` callable of transformers. `SearchRun` is one `generate` as a search sees it, `Rows`
decodes, and `Found` is what a search returns.
"""

from logitkit.processors.searches.adadec import AdaDec
from logitkit.processors.searches.beams import Beams
from logitkit.processors.searches.best_of import BestOf
from logitkit.processors.searches.bound_search import BoundSearch
from logitkit.processors.searches.certainty import self_certainty
from logitkit.processors.searches.chrf import chrf
from logitkit.processors.searches.contrastive_search import ContrastiveSearch
from logitkit.processors.searches.entropy_threshold import EntropyThreshold
from logitkit.processors.searches.goose import Goose
from logitkit.processors.searches.mbr import MBR, PairwiseUtility, exact_match
from logitkit.processors.searches.random_numbers import draw, uniform
from logitkit.processors.searches.resampling import effective_size, systematic
from logitkit.processors.searches.rewind import Rewind
from logitkit.processors.searches.rows import Rows
from logitkit.processors.searches.run import Found, SearchCost, SearchRun
from logitkit.processors.searches.search import Sampling, Search
from logitkit.processors.searches.selector import Candidates, Selector
from logitkit.processors.searches.smc import SMC
from logitkit.processors.searches.speculate import Speculate

__all__ = [
    "MBR",
    "SMC",
    "AdaDec",
    "Beams",
    "BestOf",
    "BoundSearch",
    "Candidates",
    "ContrastiveSearch",
    "EntropyThreshold",
    "Found",
    "Goose",
    "PairwiseUtility",
    "Rewind",
    "Rows",
    "Sampling",
    "Search",
    "SearchCost",
    "SearchRun",
    "Selector",
    "Speculate",
    "chrf",
    "draw",
    "effective_size",
    "exact_match",
    "self_certainty",
    "systematic",
    "uniform",
]
