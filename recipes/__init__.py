"""The command line, the recipes, and the scripts that made what is bundled."""

import slm  # noqa: F401  (says so where a file of the user's hides one of our packages)
