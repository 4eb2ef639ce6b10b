"""Clusters of tokens: which tokens noise takes for alike."""
