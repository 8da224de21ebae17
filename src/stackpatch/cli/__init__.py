"""One file a verb: flags in, one call, one result rendered.

Nothing else reads argv or exits.
"""
