"""Dagster assets: one file a stage, in the order data flows. Each resolves a config, calls sumi_core, returns metadata."""
