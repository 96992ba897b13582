"""The web page on which codec and speech language model can be tried."""
