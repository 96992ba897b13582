"""`python -m recipes` is `codec-slm`, so that `accelerate launch -m recipes train-slm ...` works."""

import sys

from recipes.cli.main import main

sys.exit(main())
