"""Decoding strategies as plugins for Hugging Face generate."""
