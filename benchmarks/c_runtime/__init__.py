"""The exported graph in TensorFlow's C runtime: a process without Python, and without gRPC."""
