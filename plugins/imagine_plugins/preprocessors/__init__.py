"""Preprocessors: what makes hints for ControlNets of pictures, without a network."""
