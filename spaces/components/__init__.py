"""The space of Finding Fast Transformers: a BERT taken apart into components, each dropped, beside or behind others."""
