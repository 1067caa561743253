"""From a dataset to batches on the devices; the only room that knows TensorFlow."""
