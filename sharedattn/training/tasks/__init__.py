"""What training and evaluation ask of a network's task: losses, metrics and recipes."""
