"""``dragoman probe``: what somebody's own server can truly do, asked in its own dialects and judged by its answers.

questions   what is asked, as data: a feature, the requests, and the judge of their answers
judges      answers -> honoured, approximated, dropped or unknown; pure
samples     the pictures and sounds that go with them
detecting   which dialects a server speaks, and its models, without making it generate
answers     one model's answers, in bounded time, and what a failure means
asking      one model in one dialect: the course of all questions
table       what was found, for people
command     the command line
"""
