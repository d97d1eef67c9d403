"""Exact selection over additive tables: the best networks under limits, and the whole Pareto front, with proof."""
