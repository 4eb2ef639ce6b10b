"""How a training is spread over devices: one file each."""
