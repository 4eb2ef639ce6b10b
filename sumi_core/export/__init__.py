"""Trained denoisers as folders that stock transformers opens, and back."""

from sumi_core.export.loading import ExportedModel, load_exported

__all__ = ["ExportedModel", "load_exported"]
