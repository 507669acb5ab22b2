"""How good a router is: scores of runs against those of an untrained checkpoint."""
