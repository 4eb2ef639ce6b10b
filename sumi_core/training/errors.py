"""What can end a training early."""

from __future__ import annotations

import signal

from sumi_core.base.errors import SumiError


class TrainingError(SumiError, RuntimeError):
    """A training that cannot go on. One sentence: what is wrong and what to do."""


class TrainingDiverged(TrainingError):
    """A loss or gradient that is not a number, or a loss far above what had been reached."""


class TrainingFailed(TrainingError):
    """A training process that ended badly, with its own last sentence."""


class TrainingInterrupted(BaseException):
    """A signal ended the training after its step and checkpoint. Like KeyboardInterrupt no Exception, so that no
    library between here and the process's end takes it for a failure to recover from."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; run it again to continue from its checkpoint")
        self.exit_code = 128 + signum
