"""The image-job API: ``/generate``, and what became of it."""
