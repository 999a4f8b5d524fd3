"""Tests: stories and requests are data; otherwise one file a source file."""
