"""From what people have on disk to a dataset: sources, judging and mending, writing, the card; the drawn ILSVRC."""
