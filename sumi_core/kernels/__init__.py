"""Losses of rows of logits, with closed-form gradients."""
