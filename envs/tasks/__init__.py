"""Real multi-entity sims, one module each; their third-party packages are imported only when made."""
