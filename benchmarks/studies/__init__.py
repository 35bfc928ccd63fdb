"""Programs of their own, each for one question in docs/."""
