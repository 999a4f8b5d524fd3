"""Every client dialect x every backend x every ability, with the official SDKs, checked by what is answered.

    python -m tests.matrix [--only TABLE] [--backend NAME] [--json FILE] [--write]

``world`` starts two gateways on the demo models; ``openai_rows`` and its siblings say what is asked and how the answer shows
that the ability was carried, and ``checks`` what several of them do alike; ``python_clients`` and ``javascript`` drive the
SDKs; ``judge`` tells what became of a cell; ``run`` goes through them all and ``table`` writes them down.
"""
