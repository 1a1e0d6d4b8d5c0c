"""What every layer uses: elementwise functions, tensor helpers, argument checks, noise, name suggestions, atomic files."""
