"""Serving: a small local model server, a client for it and for TensorFlow Serving, and TensorFlow Serving's configs."""
