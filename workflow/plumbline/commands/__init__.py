"""Commands of `plumbline` that are about all studies. Each module is light; what is heavy it imports when it runs."""
