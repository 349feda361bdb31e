"""How CT, MR and X-ray images come about: pure functions of arrays."""
