"""The command line, the recipes, and the scripts that made what is bundled."""
