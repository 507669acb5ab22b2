"""Trainers: each a thin script over TRL with a recipe, `orchestra train KIND --recipe FILE`."""
