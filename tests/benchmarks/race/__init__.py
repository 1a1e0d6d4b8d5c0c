"""What do the sampler benchmarks share? Exact problems, the released peers behind one call, and our entries."""
