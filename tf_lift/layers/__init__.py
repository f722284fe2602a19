"""Keras layers of the encoder and the predictor."""
