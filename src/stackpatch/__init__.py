"""Versioned patch series, reproducible builds and upstream tracking for LLM inference stacks."""

from __future__ import annotations

__version__ = "0.1.0"
