"""What goes wrong with an export."""

from sumi_core.errors import SumiError


class ExportError(SumiError, ValueError):
    """An export that cannot be written, opened or trusted. One sentence: the file, what is wrong, what to do."""
