"""Native code behind a wall: processes that are asked over pipes, watched, and started again when they die.

``worker`` is the gateway's side, ``desk`` the process's own, ``frames`` what they say to each other. ``life`` is one process from
start to death; ``deaths``, ``pulse`` and ``failing`` tell deaths that repeat, engines that hang and loads that fail; ``memory`` and
``parent`` bound what a process may have, and how long.
"""
