"""Chains in other engines and harnesses. Each module needs the library that it is named after."""
