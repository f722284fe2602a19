"""The encoder, its pretraining, and the predictor."""
