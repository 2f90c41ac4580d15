"""Names and their declarations: Specs, discovery of plugins, and chains. Importing this package imports no torch.

The laws are in `logitkit.registry.laws`.

>>> default_registry().describe("top_k").summary
'Keep the k likeliest tokens.'
"""

from logitkit.registry.chain import Chain
from logitkit.registry.chain_schema import chain_schema
from logitkit.registry.discovery import default_registry, discover
from logitkit.registry.hookspecs import hookimpl
from logitkit.registry.registry import Plugin, Registry
from logitkit.registry.required_package import RequiredPackage
from logitkit.registry.scored_text import Scored
from logitkit.registry.spec import Spec
from logitkit.registry.task_spec import TaskSpec

__all__ = [
    "Chain",
    "Plugin",
    "Registry",
    "RequiredPackage",
    "Scored",
    "Spec",
    "TaskSpec",
    "chain_schema",
    "default_registry",
    "discover",
    "hookimpl",
]
