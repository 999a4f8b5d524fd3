"""``dragoman probe``: what somebody's own server can truly do, asked in its own dialects and judged by its answers.

questions   what is asked, as data: a feature, the requests, and the judge of their answers
judges      answers -> honoured, approximated, dropped or unknown; pure
numbers     the same of vectors and scores
inline      thoughts in the text of an answer, told apart before it is judged
samples     the pictures and sounds that go with them
detecting   which dialects a server speaks, and its models, without making it generate
answers     one model's answers, in bounded time, and what a failure means
asking      one model in one dialect: the course of all questions
server      a whole server: which models in which dialects
table       what was found, for people
safe        texts of servers, made fit to be printed
command     the command line
"""
