"""Speed and memory on this machine, beside `transformers`' codecs and beside the budgets: what `bench` runs."""
