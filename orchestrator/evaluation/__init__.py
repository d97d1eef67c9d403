"""How candidates are scored: the evaluator's contract, the search loop, and its two drivers (plain and Ray Tune)."""
