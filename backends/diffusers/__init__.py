"""Diffusion models: pictures of prompts. Folders of diffusers and single files, as safetensors; torch runs in worker processes only."""
