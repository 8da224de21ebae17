"""The OCI distribution protocol, for what container engines cannot do.

Ships what artefacts made, byte for byte.
"""
