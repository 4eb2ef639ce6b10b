"""Experiments: their schema, files and sweeps, and the parts that one is built of."""
