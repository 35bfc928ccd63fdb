"""Real tables, and the models' held-out log p on them."""
