"""What can be wrong with the store."""

from __future__ import annotations

from sumi_core.errors import SumiError


class StoreError(SumiError, RuntimeError):
    """The store is damaged or cannot be written. One sentence with the path and what to do."""
