"""Dagster assets, one file a stage in the order data flows: resolve a config, call sumi_core, return metadata."""
