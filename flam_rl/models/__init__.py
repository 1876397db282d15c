"""The world model, one module a part."""
