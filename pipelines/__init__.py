"""Wiring: Dagster definitions, launchers and the ``sumi`` command line."""
