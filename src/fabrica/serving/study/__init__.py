"""The double-blind reader study."""
