"""Applications around the models: the web page and the HTTP service."""
