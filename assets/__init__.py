"""Dagster assets: one for each stage, and the comparison of a sweep."""
