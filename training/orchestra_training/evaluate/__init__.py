"""How good a router is: scores of runs against those of an untrained checkpoint, and evaluations as a whole.

examples, conditions   what routers are tried on
routers                who is tried, by name
play, processes        runs through the graph, in this process or in several
resume                 what a log holds already
bootstrap, tables      figures with bounds
evaluation             all of it
"""
