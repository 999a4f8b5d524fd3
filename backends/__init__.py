"""Where models are: inside the process, or behind HTTP. A loaded model is an object that can generate or embed."""
