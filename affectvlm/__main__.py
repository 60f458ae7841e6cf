"""`python -m affectvlm`: see `affectvlm.cli`."""

import os
import sys

from affectvlm.cli import main

if __name__ == "__main__":
    # before torch is imported: threads that spin while they wait make a busy machine many times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    sys.exit(main())
