"""``torchrun`` that ends with the process that started it, instead of training on as an orphan.

python -m sumi_core.training.torchrun --standalone --nproc-per-node=2 -m sumi_core.training REQUEST.json
"""

from __future__ import annotations

import os

from sumi_core.training.process import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # unset, torchrun complains; the trainer sets its threads itself
    from torch.distributed.run import main

    main()
