"""Values without IO: arches, recipes, patches, verdicts, plans.

Parsed once at the edge, they cannot be made wrong afterwards.
"""
