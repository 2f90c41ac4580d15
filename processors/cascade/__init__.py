"""Cascades and routing: a small model first, a large one where the small one is unsure."""
