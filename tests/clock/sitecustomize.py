"""For tests/chaos.py: the program's wall clock, moved by CHAOS_CLOCK seconds."""

import os
import time

if _offset := float(os.environ.get("CHAOS_CLOCK", "0")):
    _time, _time_ns = time.time, time.time_ns
    time.time = lambda: _time() + _offset
    time.time_ns = lambda: _time_ns() + int(_offset * 1e9)
