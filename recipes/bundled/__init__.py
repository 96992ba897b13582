"""The scripts that made what is bundled: texts, synthetic speech, word times, the sample corpus.

Nothing in the library imports from here; `README.md` beside this file says how to run them.
"""
