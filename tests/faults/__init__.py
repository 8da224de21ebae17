"""Faults that tests plant, and that a person can plant by hand to see a check fail."""
