"""The mechanisms, one a file: the module beside its parameters and MACs in closed form."""
