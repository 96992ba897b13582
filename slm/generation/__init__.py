"""Generation: what may come next, drawing it, and speech as it is asked for and handed out."""
