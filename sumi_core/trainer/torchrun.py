"""``torchrun`` that ends with the process that started it, instead of training on as an orphan.

python -m sumi_core.trainer.torchrun --standalone --nproc-per-node=2 -m sumi_core.trainer REQUEST.json
"""

from __future__ import annotations

import os

from sumi_core.base.process import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # unset, torchrun complains; the trainer sets its threads itself
    from torch.distributed.run import main

    main()
