"""What holds for all tests."""

import signal

from hypothesis import HealthCheck, settings

# A busy machine is no fault of what is tested.
settings.register_profile("lbcore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lbcore")

# A shell starts what it puts into the background with SIGINT ignored, and programs inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
