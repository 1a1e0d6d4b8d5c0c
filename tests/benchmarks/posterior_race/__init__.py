"""Benchmark of posterior methods against exact posteriors: problems, methods of ours and of others, measurement."""
