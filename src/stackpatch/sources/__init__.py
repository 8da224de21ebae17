"""Upstream bytes into the source store: git, sdists and wheels become trees under the git tree's paths.

Nothing here knows about patches.
"""
