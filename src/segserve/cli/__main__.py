"""``python -m segserve.cli``: the same as the console script."""

import sys

from segserve.cli import main

sys.exit(main())
