"""Ways to use a finished model from outside: adapters for the programs of others. What they need is an optional
extra."""
