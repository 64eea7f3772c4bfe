"""Repeat: collect, learn, evaluate, save; the epoch as prose."""
