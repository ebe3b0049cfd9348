"""Run in a process that has LeRobot: the recorder on SETTINGS, hurried at its end; it logs to LOG."""

import os

from gripwire import service
from gripwire_recorder import service as recorder

SETTINGS, LOG = globals()["SETTINGS"], globals()["LOG"]

os.dup2(os.open(LOG, os.O_WRONLY | os.O_CREAT), 2)
recorder._CLOSE_S = 0.5
service.run("recorder", SETTINGS, recorder.build)
