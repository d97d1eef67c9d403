"""What decides: recipes, the pipeline of stages, search strategies, evaluation, results, report and the command."""
