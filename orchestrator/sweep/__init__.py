"""A sweep: spaces × strategies × seeds × budgets as one run, over supernets that are trained once."""
