"""What people have on disk, as references to examples: the official archives, folders, TFDS builds."""
