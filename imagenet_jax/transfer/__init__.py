"""Starting from other weights, and leaving some of them as they are."""
