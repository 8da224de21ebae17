"""What happens to patches: applying under guards, finding out whether they landed, moving them.

Patches are functions from tree to tree.
"""
