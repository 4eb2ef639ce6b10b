"""The training process: its request, its launcher, its outputs. Importing this package imports nothing heavy."""
