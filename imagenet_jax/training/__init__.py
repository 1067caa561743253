"""From a config to a trained, reported run."""
