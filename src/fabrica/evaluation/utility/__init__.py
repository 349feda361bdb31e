"""What synthetic images are worth: whether what learns from them does better on real ones."""
