"""What every model shares: the world and its verbs, saving and loading, the networks that labels add, threads."""
