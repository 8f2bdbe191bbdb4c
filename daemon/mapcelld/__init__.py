"""The daemon: who may see which bytes, and for how long."""
