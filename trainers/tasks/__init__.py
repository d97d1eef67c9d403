"""Downstream tasks: what they are, their data and metrics, and fine-tuning encoders on them."""
