"""The README's section of results, made from the files that evaluate-codec, evaluate-slm and bench leave."""
