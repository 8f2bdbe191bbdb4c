"""Networks whose parameters are views of shared memory."""
