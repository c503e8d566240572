"""How ranks agree on gradients."""
