"""Exact BM25 over categorical rows, as of any time (DESIGN.md section 4)."""
