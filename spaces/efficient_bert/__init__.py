"""EfficientBERT's space: expressions in place of feed-forwards, on a small fixed BERT."""
