"""Parts of the imputation benchmark: hidden cells and scores, and the methods."""
