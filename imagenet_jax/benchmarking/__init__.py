"""How fast training is: on these devices, with its input, on more of them, and on pods that are not here."""
