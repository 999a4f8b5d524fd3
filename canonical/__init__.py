"""What a gateway talks about, in its own small words: messages, requests, events, errors.

Pure values. Nothing here knows a wire format, reads a clock, or waits.
"""
