"""Contrastive decoding: combine the logits of two readings of one text."""
