"""Zipf noise for Sumi."""
