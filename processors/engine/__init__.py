"""The objects that processors work with: prompts, bindings, second streams, histories and traces.

A processor receives token rows and scores. Everything else comes from here: `Binding` gives a processor its second
`Stream`, its `History` and the `Prompts` of the call; `Trace` records what the processor did.
"""

from __future__ import annotations

from logitkit.processors.engine.aligned_stream import AlignedStream
from logitkit.processors.engine.behind_rows import BehindRows
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.captured_layers import CapturedLayers
from logitkit.processors.engine.captured_outputs import CapturedOutputs
from logitkit.processors.engine.chats import apply_template
from logitkit.processors.engine.composite import Composite, Observer
from logitkit.processors.engine.constraints import AllowedTokens, Constraint
from logitkit.processors.engine.cross_tokenizer_reader import CrossTokenizerReader
from logitkit.processors.engine.divergences import divergence, js_bits
from logitkit.processors.engine.encoder_decoder_reader import EncoderDecoderReader
from logitkit.processors.engine.fold import Fold
from logitkit.processors.engine.gate import Gate
from logitkit.processors.engine.gated import Gated
from logitkit.processors.engine.history import History
from logitkit.processors.engine.kv_tree import KVTree
from logitkit.processors.engine.log_probabilities import log_probabilities
from logitkit.processors.engine.padded_rows import left_padded
from logitkit.processors.engine.padding import BoundPrompts, without_padding
from logitkit.processors.engine.prefix_random import PrefixRandom
from logitkit.processors.engine.prompts import Prompts, pad_token, read_prompts
from logitkit.processors.engine.reader import Reader
from logitkit.processors.engine.scores import fit
from logitkit.processors.engine.streams import FusableStream, Stream, StreamLike, as_stream
from logitkit.processors.engine.trace import FusionReport, Step, Trace, most_probable

__all__ = [
    "AlignedStream",
    "AllowedTokens",
    "BehindRows",
    "Binding",
    "BoundPrompts",
    "CapturedLayers",
    "CapturedOutputs",
    "Composite",
    "Constraint",
    "CrossTokenizerReader",
    "EncoderDecoderReader",
    "Fold",
    "FusableStream",
    "FusionReport",
    "Gate",
    "Gated",
    "History",
    "KVTree",
    "Observer",
    "PrefixRandom",
    "Prompts",
    "Reader",
    "Step",
    "Stream",
    "StreamLike",
    "Trace",
    "apply_template",
    "as_stream",
    "divergence",
    "fit",
    "js_bits",
    "left_padded",
    "log_probabilities",
    "most_probable",
    "pad_token",
    "read_prompts",
    "without_padding",
]
