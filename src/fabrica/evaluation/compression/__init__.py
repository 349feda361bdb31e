"""What an autoencoder leaves of images."""
