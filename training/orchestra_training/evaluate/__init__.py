"""How good a router is: scores of runs against those of an untrained checkpoint, and evaluations as a whole.

examples                         what routers are tried on, in general
conditions                       the workbench under the paper's conditions
published, question_sets         files of HLE, FRAMES and ToolScale; questions of one's own
routers                          who is tried, by name
play, processes, resume          runs through the graph, in any number of processes; what a log holds already
bootstrap, tables, evaluation    figures with bounds, and all of it
"""
