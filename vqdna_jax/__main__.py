"""`python -m vqdna_jax` does what `vqdna` does, where the command is not on the path."""

from vqdna_jax.cli.main import command

if __name__ == "__main__":
    command()
