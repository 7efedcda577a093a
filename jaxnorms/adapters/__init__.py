"""Layers for neural-network libraries, one module for each, which needs that library and nothing else does.

``jaxnorms.adapters.nnx`` (``pip install "jaxnorms[flax]"``) and ``jaxnorms.adapters.equinox`` (``pip install
"jaxnorms[equinox]"``) wrap a layer so that it is evaluated with its weight divided by the spectral norm.
"""
