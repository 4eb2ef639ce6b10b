"""From sources of text to batches: documents, tokenizers, token shards, and noise addressed by example."""

from sumi_core.base.registry import Registry

CLUSTERINGS = Registry(
    "clustering of tokens",
    "sumi_core.data.clusters.clustering:Clustering",
    {
        "distribution": "sumi_core.data.clusters.distribution:Distribution",
        "surface": "sumi_core.data.clusters.surface:Surface",
    },
    key="clustering",
)

SOURCES = Registry(
    "corpus source",
    "sumi_core.data.sources.source:Source",
    {
        "huggingface": "sumi_core.data.sources.huggingface:HuggingFace",
        "jsonl": "sumi_core.data.sources.files:Jsonl",
        "mixture": "sumi_core.data.sources.mixture:Mixture",
        "parquet": "sumi_core.data.sources.files:Parquet",
        "python-stdlib": "sumi_core.data.sources.python_stdlib:PythonStdlib",
        "task": "sumi_core.data.sources.task:TaskInstances",
        "text": "sumi_core.data.sources.files:TextFiles",
        "web-bible": "sumi_core.data.sources.web_bible:WebBible",
    },
    key="source",
)

TASKS = Registry(
    "structured task",
    "sumi_core.data.tasks.task:Task",
    {
        "arithmetic": "sumi_core.data.tasks.arithmetic:Arithmetic",
        "brackets": "sumi_core.data.tasks.brackets:Brackets",
        "copy": "sumi_core.data.tasks.copy:Copy",
        "csv": "sumi_core.data.tasks.csv_table:CsvTable",
        "json": "sumi_core.data.tasks.json_object:JsonObject",
        "markdown": "sumi_core.data.tasks.markdown_table:MarkdownTable",
        "python": "sumi_core.data.tasks.python_function:PythonFunction",
        "replace": "sumi_core.data.tasks.replace:Replace",
        "reverse": "sumi_core.data.tasks.reverse:Reverse",
        "shuffle": "sumi_core.data.tasks.shuffle:Shuffle",
        "sudoku": "sumi_core.data.tasks.sudoku:Sudoku",
    },
    key="task",
)

TOKENIZERS = Registry(
    "tokenizer",
    "sumi_core.data.tokenizers.tokenizer:Tokenizer",
    {
        "bpe": "sumi_core.data.tokenizers.bpe:ByteLevelBpe",
        "byte": "sumi_core.data.tokenizers.byte:Byte",
        "huggingface": "sumi_core.data.tokenizers.huggingface:HuggingFace",
    },
    key="tokenizer",
)
