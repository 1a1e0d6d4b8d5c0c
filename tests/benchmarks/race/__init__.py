"""Shared parts of the sampler benchmark: exact problems, released samplers of other libraries, and our own."""
