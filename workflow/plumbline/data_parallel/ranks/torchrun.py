"""torchrun, which tells the ranks its process id and ends at once when they are done.

Tearing torch down would take half a second more, several times in a study.
"""

import os
import sys

from torch.distributed.run import main

from plumbline.data_parallel.ranks.launch import AGENT

if __name__ == "__main__":
    os.environ[AGENT] = str(os.getpid())
    main()  # raises when a rank has failed
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
