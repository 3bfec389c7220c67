"""`python -m vqdna_jax`: the `vqdna` command."""

from vqdna_jax.cli.main import command

command()
