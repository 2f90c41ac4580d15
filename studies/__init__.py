"""Measurements of single methods, one file a page of results. Not part of the installed package."""
