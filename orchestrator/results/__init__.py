"""Results: every measurement of a run as Parquet tables which can be read while the run goes on."""
