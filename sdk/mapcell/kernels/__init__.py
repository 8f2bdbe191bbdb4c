"""What is computed, as pure functions over ndarrays. Nothing here knows Tensors, Parameters or Cells."""
