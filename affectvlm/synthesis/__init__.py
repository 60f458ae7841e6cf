"""Faces made of numbers: our procedural head and an adapter for the open ICT-FaceKit model, both driven by action
units."""
