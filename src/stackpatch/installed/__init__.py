"""Packages and caches in a Python environment on this machine.

Nothing here builds anything.
"""
