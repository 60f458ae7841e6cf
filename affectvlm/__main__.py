"""`python -m affectvlm`: see `affectvlm.cli`."""

import sys

from affectvlm.cli import main

if __name__ == "__main__":
    sys.exit(main())
