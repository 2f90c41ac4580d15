"""Chains in other inference engines and evaluation harnesses; each module needs the library of its name."""
