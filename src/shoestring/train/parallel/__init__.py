"""Training on several devices: one process a device, arranged in a mesh; one file for each way to divide the work."""
