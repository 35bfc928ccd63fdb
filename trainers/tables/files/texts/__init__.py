"""Tables in text: its encoding, its dialect, its header, and what its words mean."""
