"""Measurements anyone can make again; numbers go to ``results``. Each file says how to run it."""
