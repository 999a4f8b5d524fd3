"""Jobs for workers on other machines, over a Redis server: with ``jobs.queue`` this stands where ``loop`` stands else.

``queue`` is SAQ's there, which both sides share; ``gateways`` the gateway's side, ``workers`` that of ``dragoman worker``. The
rows of the store remain the truth.
"""
