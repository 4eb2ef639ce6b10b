"""Structured tasks: questions whose answers an exact checker decides about, one file per task."""
