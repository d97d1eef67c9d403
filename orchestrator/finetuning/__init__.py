"""Comparing models on downstream tasks: which fine-tunings are due, doing them, and what came out."""
