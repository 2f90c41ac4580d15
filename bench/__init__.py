"""Decoding strategy as the axis: measurements of cost and quality."""
