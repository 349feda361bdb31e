"""Heads in MR contrasts, CT and PET."""
