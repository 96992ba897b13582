"""Speed and memory on this machine, beside what one would otherwise use and beside the budgets: what `bench` runs."""
