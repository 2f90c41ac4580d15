"""The mathematics: plain transformers LogitsProcessors and the engines under them. Knows no names."""
