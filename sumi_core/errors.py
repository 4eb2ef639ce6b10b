"""The one family of errors that are a user's to mend."""


class SumiError(Exception):
    """Bad input, a missing or damaged file, a training that cannot go on. Its text is one sentence that names the file
    or key and says what to do; the command line prints it without a traceback."""
