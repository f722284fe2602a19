"""Exact BM25 retrieval beside other engines, on one core: speed, memory, and whether the answers are the same."""
