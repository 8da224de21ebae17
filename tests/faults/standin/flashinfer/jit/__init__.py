"""Compiling when first used."""
