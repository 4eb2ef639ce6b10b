"""What goes wrong with an export."""


class ExportError(ValueError):
    """An export that cannot be written, opened or trusted. One sentence: the file, what is wrong, what to do."""
