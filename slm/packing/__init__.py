"""Documents into blocks of one length, and the blocks' order: the same for any number of processes."""
