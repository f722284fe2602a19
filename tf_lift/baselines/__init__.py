"""Rankers to compare with."""
