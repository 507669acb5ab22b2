"""Tool descriptions from what a tool really does (arXiv 2511.21689, section 3.1).

An expert of a catalog is run on sample tasks, its answers are judged, a chat model writes what it is good and bad at,
and success, price and latency are measured. From the command line: `orchestra describe CATALOG`.

    samples    tasks: of the workbench, or questions of one's own
    attempts   runs of one tool on the samples, and what they come to
    writer     the description
    rewriting  the catalog's text with all of it, comments and order kept
"""
