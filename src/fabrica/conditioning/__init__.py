"""What a model is told of an image: from words to arrays, and the networks' side of it."""
