"""NAS-BERT's search space (Xu et al., KDD 2021): blocks of attention, feed-forward and separable convolution."""
