"""Where models are: inside the process, or behind HTTP. What a loaded model can do is which methods it has: see ``base``."""
