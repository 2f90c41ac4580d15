"""Exact next-byte distributions of a tokenized language model."""
