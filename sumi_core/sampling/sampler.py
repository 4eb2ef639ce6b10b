"""What a sampler is: it turns a trained denoiser into texts, a step at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from sumi_core.base.registry import Part
from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.layouts.layout import Layout, Whole
from sumi_core.models.interface import DenoiserFunction
from sumi_core.sampling import SAMPLERS
from sumi_core.sampling.canvas import Canvas, Constraint
from sumi_core.sampling.drawing import Samples, draw_texts
from sumi_core.sampling.generate import Stop

if TYPE_CHECKING:
    from torch import Tensor


class Sampler(Part, ABC):
    """Draws texts. Row r's randomness is addressed by (seed, step, r), so r is the same text in any company.

    A sampler says how a canvas starts, how one step changes it, and when a row is finished; the loop is ``generate``.
    """

    needs_process: ClassVar[bool] = True
    #: Whether a position of the model may see only what stands before it; None: either will do.
    causal: ClassVar[bool | None] = False
    #: The layouts of a model that it writes with.
    layouts: ClassVar[tuple[str, ...]] = ("whole",)
    #: Whether it draws by a constraint on tokens together, or from left to right, where one position at a time does.
    holds_languages: ClassVar[bool] = False
    uses_steps: ClassVar[bool] = True  # False: takes the network calls it needs, whatever number is asked for
    revises: ClassVar[bool] = False  # whether it can begin with a finished text
    # One that writes under several layouts decides these two by the layout when it is built.
    mode: str = "whole"  # of ``sumi_core.sampling.modes``, in which it reads the model
    grows: bool = False  # True: writes from the left, and what it has not reached holds nothing yet

    def __init__(
        self,
        options: Any = None,
        *,
        process: ForwardProcess | None,
        vocabulary: Vocabulary,
        layout: Layout | None = None,
    ) -> None:
        super().__init__(options)
        self.layout = layout or Whole()
        if self.needs_process:
            if process is None:
                raise ValueError(f"sampler '{self.name}' needs a corruption process; choose another sampler")
            self.process = process
        self.num_states = process.num_states if process else vocabulary.size
        self.num_tokens = vocabulary.size
        self.eos_id = vocabulary.eos_id

    @property
    def name(self) -> str:
        """What a config calls it."""
        return SAMPLERS.name_of(self)

    @abstractmethod
    def start(self, canvas: Canvas) -> Canvas:
        """The canvas before the first network call: what is not frozen holds noise, or nothing yet."""

    @abstractmethod
    def step(self, denoiser: DenoiserFunction, canvas: Canvas) -> Canvas:
        """The canvas after one more step, in the denoiser's current train/eval mode."""

    @abstractmethod
    def finished(self, canvas: Canvas) -> Tensor:
        """Which rows need no further step, ``[B]`` bool."""

    def settled(self, canvas: Canvas) -> Tensor:
        """How many tokens at the left of each row will change no more, ``[B]``: all or none, unless a sampler knows."""
        return torch.where(self.finished(canvas), canvas.lengths, 0)

    def shown(self, tokens: Tensor) -> Tensor:
        """What a reader sees of the states on a canvas: tokens, or the mask."""
        return self.process.shown(tokens) if self.needs_process else tokens

    def check(self, canvas: Canvas) -> None:
        """Raise ValueError for a canvas that cannot be written."""
        if canvas.steps < 1 or not len(canvas.tokens):
            raise ValueError(
                f"sampling needs at least 1 step and 1 text, got {canvas.steps} steps and {len(canvas.tokens)} texts"
            )
        if canvas.revises and not self.revises:
            raise ValueError(f"sampler '{self.name}' begins with noise and revises no text; choose another")
        given = canvas.tokens if canvas.revises else canvas.tokens[canvas.frozen]
        if len(given) and (int(given.min()) < 0 or int(given.max()) >= self.num_tokens):
            what = "text" if canvas.revises else "prompt"
            raise ValueError(f"the {what} holds ids outside the vocabulary of {self.num_tokens} tokens")
        if canvas.joint is not None:
            if not self.holds_languages:
                raise ValueError(
                    f"sampler '{self.name}' decides about every token by itself and cannot hold a text to a "
                    "language; choose another sampler"
                )
            canvas.joint.check(canvas)
        place = torch.arange(canvas.length, device=canvas.device)
        if bool((canvas.frozen | (place >= canvas.lengths[:, None])).all(-1).any()):
            raise ValueError(f"a prompt leaves nothing to write in a text of {canvas.length} tokens")

    def sample(
        self,
        denoiser: DenoiserFunction,
        *,
        num: int,
        length: int | Sequence[int],
        steps: int,
        seed: int,
        prompt: Tensor | Sequence[Tensor] | None = None,
        given: Sequence[tuple[Tensor, Tensor]] | None = None,
        told: bool = False,
        constraints: Sequence[Constraint] = (),
        end_of_text: bool = False,
        text: Tensor | Sequence[Tensor] | None = None,
        watch: Callable[[Canvas], None] | None = None,
        stop: Stop | None = None,
    ) -> Samples:
        """Draw ``num`` texts; see ``draw_texts``."""
        return draw_texts(
            self,
            denoiser,
            num=num,
            length=length,
            steps=steps,
            seed=seed,
            prompt=prompt,
            given=given,
            told=told,
            constraints=constraints,
            end_of_text=end_of_text,
            text=text,
            watch=watch,
            stop=stop,
        )
