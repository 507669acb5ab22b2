"""From logged runs to the next router: verdicts, rewards, filters, groups, evaluation.

Imports the core package; the core never imports this one.
"""
