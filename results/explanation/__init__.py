"""What a study says of its space: what each part of a placement is worth, and where to pay."""
