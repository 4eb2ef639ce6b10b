"""From sources of text to batches: documents, tokenizers, token shards, and noise addressed by example."""

from typing import TYPE_CHECKING

from sumi_core.registry import Registry

if TYPE_CHECKING:
    from sumi_core.data.clusters.clustering import Clustering
    from sumi_core.data.sources import Source
    from sumi_core.data.tokenizers import Tokenizer

CLUSTERINGS: "Registry[Clustering]" = Registry(
    "clustering of tokens",
    {
        "distribution": "sumi_core.data.clusters.distribution:Distribution",
        "surface": "sumi_core.data.clusters.surface:Surface",
    },
)

SOURCES: "Registry[Source]" = Registry(
    "corpus source",
    {
        "huggingface": "sumi_core.data.sources.huggingface:HuggingFace",
        "jsonl": "sumi_core.data.sources.files:Jsonl",
        "mixture": "sumi_core.data.sources.mixture:Mixture",
        "parquet": "sumi_core.data.sources.files:Parquet",
        "python-stdlib": "sumi_core.data.sources.python_stdlib:PythonStdlib",
        "text": "sumi_core.data.sources.files:TextFiles",
        "web-bible": "sumi_core.data.sources.web_bible:WebBible",
    },
)

TOKENIZERS: "Registry[Tokenizer]" = Registry(
    "tokenizer",
    {
        "bpe": "sumi_core.data.tokenizers.bpe:ByteLevelBpe",
        "byte": "sumi_core.data.tokenizers.byte:Byte",
        "huggingface": "sumi_core.data.tokenizers.huggingface:HuggingFace",
    },
)

#: A number per token that a part may ask for (its ``tables``) → the stage that measures it, in ``<name>.npy``.
TOKEN_TABLES: dict[str, str] = {"token_clusters": "token_clusters", "token_counts": "token_shards"}
