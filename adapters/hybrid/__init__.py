"""The dialect ``hybrid``: a chat of text and pictures over LM Studio, with control of its models."""
