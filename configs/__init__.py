"""The experiments, one a file; an installed package has them as `vqdna_jax.configs`."""
