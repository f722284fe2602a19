"""Examples, TFRecords and the tf.data input of training."""
