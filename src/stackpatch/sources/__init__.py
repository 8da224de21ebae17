"""Upstream bytes into the source store: git, sdists and wheels become trees with git paths.

Nothing here knows about patches.
"""
