"""A trained network put to use: predictions for pictures, where it looked, a file that runs alone."""
