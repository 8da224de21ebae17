"""What a build makes: wheel, OCI image, lock, SBOM, provenance.

Same inputs, same bytes.
"""
