"""Ensembles of models, whatever their tokenizers."""
