"""What the modules stand on: what a layer is, and how calls of layers are traced."""
