"""Training: advantages, losses, batches, one update, and the recipes that chain them."""
