"""Errors that the user can fix."""


class SumiError(Exception):
    """Bad input, a missing or damaged file, a training that cannot go on. Its text is one sentence that names the file
    or key and says what to do; the command line prints it without a traceback."""


class StoreError(SumiError, RuntimeError):
    """The store is damaged or cannot be written. One sentence with the path and what to do."""
