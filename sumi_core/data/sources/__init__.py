"""Where documents come from: a file a source, and what a new one is made of."""

from sumi_core.data.sources.local import digests, local_files
from sumi_core.data.sources.source import Document, Source, SourceError
from sumi_core.paths import project_path

__all__ = ["Document", "Source", "SourceError", "digests", "local_files", "project_path"]
