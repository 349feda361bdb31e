"""What is shown to people while they work with it."""
