"""``dragoman pull``, ``list``, ``run`` and the like: a client of the running gateway, or of one that it starts for the while.

command.py   the words of the command line        place.py   which gateway, and its key
client.py    requests to it                       shown.py   tables and bars
chat.py      ``run``                              making.py  ``create``, and ``pull`` of a file
"""
