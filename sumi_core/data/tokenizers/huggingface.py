"""Any fast Hugging Face tokenizer, by folder or name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sumi_core.data.sources import project_path
from sumi_core.data.tokenizers import EOS, Tokenizer, TokenizerError


class HuggingFace(Tokenizer):
    """Used as it is; without an end-of-text token of its own it gets one. Its code is never run, only its data."""

    byte_level = False

    @dataclass
    class Options:
        """path: a folder, or a name on the Hub. revision: a commit or tag of the Hub."""

        path: str = ""
        revision: str | None = None

        def check(self) -> None:
            """A path is needed."""
            if not self.path:
                raise ValueError("path is empty; write a tokenizer's folder or name")

    def train(self, texts: Iterator[str]) -> None:
        """Load it; the texts are not read. Raises TokenizerError when it cannot be opened or is not fast."""
        from transformers import AutoTokenizer

        options, local = self.options, project_path(self.options.path)
        try:
            opened: Any = AutoTokenizer.from_pretrained(
                str(local) if local.is_dir() else options.path, revision=options.revision, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise TokenizerError(f"tokenizer.path: cannot open the tokenizer '{options.path}': {reason}") from None
        if not opened.is_fast:
            raise TokenizerError(
                f"tokenizer.path: '{options.path}' is not a fast tokenizer; convert it to tokenizer.json"
            )
        self.backend = opened.backend_tokenizer
        if opened.eos_token_id is None:
            self.backend.add_special_tokens([EOS])
            self.eos_id = self.backend.token_to_id(EOS)
        else:
            self.eos_id = int(opened.eos_token_id)
        self._ready()
