"""Finding what should not be trained on: measurements, duplicates, label errors, the manifest, the report."""
