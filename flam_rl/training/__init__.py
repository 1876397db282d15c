"""Training loops, and what they share: seeds, devices, progress, TensorBoard."""
