"""Routers that are programs: baselines, fallbacks, and stand-ins for a served model."""

from orchestra_graph.routers.base import Choice, Past, ProgramRouter, Scene
from orchestra_graph.routers.programs import Cheapest, Fixed, Random
from orchestra_graph.routers.rules import Rules

__all__ = ["Cheapest", "Choice", "Fixed", "Past", "ProgramRouter", "Random", "Rules", "Scene"]
