"""Report text: tokens, sentences, frozen encoders."""
