"""What `clean` is made of: measurements, duplicates, flags, label errors, the manifest, the report."""
