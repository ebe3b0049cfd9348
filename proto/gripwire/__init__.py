"""gripwire: a live, trustworthy success signal for robot arms.

This package is the wire contract, the bus and the command. An RL process needs only it.
"""

__version__ = "0.1.0"
