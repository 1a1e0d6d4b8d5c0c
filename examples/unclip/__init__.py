"""Text to image in two stages, as DALL·E 2: a prior over image embeddings, and a decoder of them."""
