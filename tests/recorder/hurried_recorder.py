"""The recorder of the environment's settings, hurried at its end; it logs to the file that is named."""

import os
import sys

from gripwire import service, settings
from gripwire_recorder import service as recorder

os.dup2(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT), 2)
recorder._CLOSE_S = 0.5
sys.exit(service.run("recorder", settings.load(), recorder.build))
