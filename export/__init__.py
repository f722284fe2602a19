"""Exports the trained ranker as a SavedModel for TensorFlow Serving."""
