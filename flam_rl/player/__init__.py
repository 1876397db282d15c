"""A world in the browser: seen, controlled, undone, recorded."""
