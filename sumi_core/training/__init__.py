"""Training: a Lightning run in a process of its own, resumable to the last bit.

Importing this package, :mod:`.launcher` or :mod:`.stage` costs nothing; torch and Lightning are imported by
:mod:`.run`, inside the training process.
"""
