"""Models from elsewhere: Ollama's registries, Hugging Face, plain https; and back to a registry."""
