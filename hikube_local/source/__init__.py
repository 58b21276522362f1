"""Text with places: YAML as Kubernetes reads it, its scalars, SSH keys, and what is found about them."""
