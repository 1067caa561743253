"""From archives to batches; the only room that knows TensorFlow."""
