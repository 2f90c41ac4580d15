"""An OpenAI-compatible server over one model, in which each request may name its chain."""

from logitkit.serving.app import create_app
from logitkit.serving.engine import Engine
from logitkit.serving.limits import Limits
from logitkit.serving.resources import Resources

__all__ = ["Engine", "Limits", "Resources", "create_app"]
