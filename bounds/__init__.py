"""Bounds: the papers' linear programmes, exact optima by dynamic programming, and certificates that need no solver."""
