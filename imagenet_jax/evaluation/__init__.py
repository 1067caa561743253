"""Exact evaluation of a split, and its report."""
