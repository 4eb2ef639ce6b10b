"""The tokenizer as stock transformers opens it, with a token for each state that no text holds (the mask)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sumi_core.export.record import ExportError
from sumi_core.export.stock import quiet_transformers

if TYPE_CHECKING:
    from sumi_core.data.tokenizers.tokenizer import Tokenizer

MASK = "<|mask|>"
_PROBE = "In the beginning: 1,234.5 naïve façades – “日本語” 🙂\n\n\tdef f(x):  return x  # done\r\n"


def write_stock_tokenizer(
    source: Path, folder: Path, *, num_tokens: int, num_states: int, eos_id: int, mask_id: int | None, length: int
) -> None:
    """Write the tokenizer of ``source`` (its tokenizer.json) so that AutoTokenizer opens ``folder``.

    States ``num_tokens … num_states − 1`` become special tokens, so that ``len(tokenizer)`` is the model's vocabulary.
    Raises ExportError when the ids would not be the model's.
    """
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Backend
    from transformers import PreTrainedTokenizerFast

    path = source / "tokenizer.json"
    if not path.is_file():
        raise ExportError(f"{path} does not exist; make the tokenizer again")
    backend = Backend.from_file(str(path))
    if backend.num_special_tokens_to_add(False):  # a prompt is text that goes on: no training text was put into a frame
        backend.post_processor = None
    names: dict[int, str] = {}
    for state in range(num_tokens, num_states):
        names[state] = _unused(backend, MASK if state == mask_id else f"<|state_{state}|>")
        backend.add_special_tokens([AddedToken(names[state], special=True, normalized=False)])
        if (given := backend.token_to_id(names[state])) != state:
            raise ExportError(f"{path}: a further token would get id {given}, but the model's state is {state}")
    eos = backend.id_to_token(eos_id)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=eos,
        eos_token=eos,
        pad_token=eos,
        mask_token=None if mask_id is None else names[mask_id],
        model_max_length=length,
        clean_up_tokenization_spaces=False,
    )
    if len(tokenizer) != num_states:
        raise ExportError(f"{path} holds {len(tokenizer)} tokens, but the model has {num_states} states")
    with quiet_transformers():
        tokenizer.save_pretrained(folder)


def check_exportable(tokenizer: Path) -> None:
    """Write the tokenizer of a folder in its stock form, with a mask, and compare it with itself: what an export would
    find wrong after the training. Raises TokenizerError."""
    from sumi_core.data.tokenizers.tokenizer import TokenizerError, load_tokenizer

    loaded = load_tokenizer(tokenizer)
    size = loaded.vocab_size
    with tempfile.TemporaryDirectory(prefix="sumi-") as scratch:
        folder = Path(scratch)
        try:
            write_stock_tokenizer(
                tokenizer, folder, num_tokens=size, num_states=size + 1, eos_id=loaded.eos_id, mask_id=size, length=2
            )
            check_stock_tokenizer(folder, loaded, num_states=size + 1, mask_id=size)
        except ExportError as error:
            problem = str(error).replace(f"{folder}", "the tokenizer as transformers would open it")
            raise TokenizerError(f"tokenizer: no model with it could be exported: {problem}; choose another") from None


def check_stock_tokenizer(folder: Path, tokenizer: Tokenizer, *, num_states: int, mask_id: int | None) -> None:
    """Open the folder with AutoTokenizer and compare ids with the tokenizer of the training, of a text alone and of one
    after end-of-text, as the model card writes prompts. Raises ExportError."""
    stock = open_stock_tokenizer(folder)
    ours = [int(i) for i in tokenizer.encode_batch([_PROBE])[0]]
    with quiet_transformers():  # the probe may be longer than the model's sequences
        theirs = stock(_PROBE)["input_ids"]
        prompt = stock(stock.eos_token + _PROBE)["input_ids"]
    if ours != theirs:
        raise ExportError(f"{folder}: stock AutoTokenizer gives ids {theirs[:8]}… where training had {ours[:8]}…")
    # What follows a special token may have other tokens than a text of its own (Llama 2 puts a blank before that).
    if prompt[0] != tokenizer.eos_id or tokenizer.eos_id in prompt[1:]:
        raise ExportError(
            f"{folder}: stock AutoTokenizer gives ids {prompt[:4]}…{prompt[-4:]} for end-of-text and a text after it, "
            f"where end-of-text is {tokenizer.eos_id}; choose a tokenizer that puts no tokens around a text"
        )
    found = {"size": len(stock), "eos": stock.eos_token_id, "mask": stock.mask_token_id}
    wanted = {"size": num_states, "eos": tokenizer.eos_id, "mask": mask_id}
    if found != wanted:
        raise ExportError(f"{folder}: stock AutoTokenizer has {found} where the model has {wanted}")


def open_stock_tokenizer(folder: Path) -> Any:
    """AutoTokenizer, no remote code, no network."""
    from transformers import AutoTokenizer

    with quiet_transformers():
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def _unused(backend: Any, name: str) -> str:
    while backend.token_to_id(name) is not None:
        name = f"<{name}>"
    return name
